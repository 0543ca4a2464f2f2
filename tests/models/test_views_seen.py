"""Which view each network of each method sees, learns from and labels."""

from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import METHODS
from keras_semimed.networks.contract import Extended
from tests.gradients import jacobian
from tests.models.methods import (
    EVERYTHING_KEPT,
    SOME_KEPT,
    VARIANTS,
    batch,
    moving_statistics,
    numpy,
    shaken,
    variant,
    watched,
)

# The views that each pass of a network holds, in their order.
SEEN: dict[str, dict[str, list[tuple[str, ...]]]] = {
    "supervised": {"network": [("labeled",)]},
    "supervised_strong": {"network": [("strong_labeled",)]},
    "mean_teacher": {"network": [("labeled", "weak")], "teacher": [("noisy",)]},
    "mean_teacher_strong": {"network": [("labeled", "strong")], "teacher": [("noisy",)]},
    "cps": {"network": [("labeled", "weak")], "network_2": [("labeled", "weak")]},
    "cps_unlabeled": {"network": [("labeled", "weak")], "network_2": [("labeled", "weak")]},
    "cps_cutmix": {"network": [("weak",), ("labeled", "mixed")], "network_2": [("weak",), ("labeled", "mixed")]},
    "fixmatch": {"network": [("labeled", "weak", "mixed", "strong")]},
    "fixmatch_masks": {"network": [("labeled", "weak", "mixed")]},
    "fixmatch_labels": {"network": [("labeled", "weak", "strong")]},
    "unimatch": {"network": [("labeled", "weak", "mixed_1", "mixed_2")]},
    "augseg": {"network": [("labeled", "augmented")], "teacher": [("weak",)]},
    "u2pl": {"network": [("labeled", "mixed")], "teacher": [("labeled", "weak")]},
    "ad_mt": {"network": [("labeled", "weak", "strong")], "teacher": [("weak",)], "teacher_2": [("weak",)]},
    "corrmatch": {"network": [("labeled", "weak", "mixed")]},
    "dcnet": {"network": [("labeled", "weak")]},
    # The strong views: first that of the unlabelled images. The displaced ones: first the labelled images, and of both
    # halves first the weak views.
    "abd": {
        "network": [("labeled", "weak"), ("displaced_1", "displaced_2")],
        "network_2": [("strong_2", "strong_1"), ("displaced_1", "displaced_2")],
    },
    "ss_net": {"network": [("labeled", "weak"), ("explored",), ("perturbed",)]},
    "diffrect": {"network": [("labeled", "weak", "strong_1", "strong_2")]},
    # The strong views: first that of the unlabelled images.
    "pefat": {"network": [("strong_2", "labeled", "strong_1", "weak")]},
    "infomatch": {"network": [("labeled", "weak", "mixed_weak", "strong_1", "strong_2")]},
    "interlude": {"network": [("interleaved",)]},
    "shrinkmatch": {"network": [("labeled", "weak", "strong")]},
    "hermes": {"network": [("labeled", "weak", "strong")]},
    "hermes_teacher": {"network": [("labeled", "weak", "strong")], "teacher": [("weak",)]},
    "hermes_own_statistics": {"network": [("labeled", "weak", "strong")], "teacher": [("weak",)]},
    "hermes_mean": {"network": [("labeled", "weak", "strong")]},
    "loco": {"network": [("labeled", "mixed", "weak")], "teacher": [("weak",)]},
    "loco_labeled": {"network": [("labeled", "mixed_with_labeled", "weak")], "teacher": [("weak",)]},
}

# The views that an output of the students is computed for, where it is not for all that they see.
ASKED: dict[str, dict[str, tuple[str, ...]]] = {
    "fixmatch": {"mask_logits": ("labeled", "weak", "mixed"), "label_logits": ("labeled", "weak", "strong")},
    "corrmatch": {"correlation": ("labeled", "weak", "mixed")},
    "shrinkmatch": {"auxiliary": ("strong",)},
    "loco": {"mask_logits": ("labeled", "mixed"), "projection": ("labeled", "weak")},
    "loco_labeled": {"mask_logits": ("labeled", "mixed_with_labeled"), "projection": ("labeled", "weak")},
}

# The heads that a teacher computes for a method; other methods' teachers give logits alone.
TEACHER_HEADS = {"u2pl": {"representation"}}

_SUPERVISED = {"network": {"labeled"}}
_BOTH = {"network": {"weak", "strong"}}
# The views whose images each term has a gradient to, by network; pseudo-labels have none to what they were made of.
LEARNT: dict[str, dict[str, dict[str, set[str]]]] = {
    "supervised": {"mask_supervised": _SUPERVISED, "label_supervised": _SUPERVISED},
    "supervised_strong": dict.fromkeys(("mask_supervised", "label_supervised"), {"network": {"strong_labeled"}}),
    "mean_teacher": {
        "mask_supervised": _SUPERVISED,
        "label_supervised": _SUPERVISED,
        "mask_consistency": {"network": {"weak"}},
        "label_consistency": {"network": {"weak"}},
    },
    "cps": {
        "mask_supervised": {"network": {"labeled"}, "network_2": {"labeled"}},
        "mask_cps": {"network": {"labeled", "weak"}, "network_2": {"labeled", "weak"}},
    },
    "cps_unlabeled": {
        "mask_supervised": {"network": {"labeled"}, "network_2": {"labeled"}},
        "mask_cps": {"network": {"weak"}, "network_2": {"weak"}},
    },
    "fixmatch": {
        "mask_supervised": _SUPERVISED,
        "label_supervised": _SUPERVISED,
        "mask_unlabeled": {"network": {"mixed"}},
        "label_unlabeled": {"network": {"strong"}},
    },
    "unimatch": {
        "mask_supervised": _SUPERVISED,
        "mask_strong_1": {"network": {"mixed_1"}},
        "mask_strong_2": {"network": {"mixed_2"}},
        "mask_feature": {"network": {"weak"}},
    },
    "augseg": {"mask_supervised": _SUPERVISED, "mask_unlabeled": {"network": {"augmented"}}},
    "u2pl": {
        "mask_supervised": _SUPERVISED,
        "mask_unlabeled": {"network": {"mixed"}},
        "mask_contrast": {"network": {"labeled", "mixed"}},
    },
    "ad_mt": {"mask_supervised": _SUPERVISED, "mask_unlabeled": {"network": {"strong"}}},
    "corrmatch": {
        "mask_supervised": _SUPERVISED,
        "mask_correlation_supervised": _SUPERVISED,
        "mask_hard": {"network": {"mixed"}},
        "mask_soft": {"network": {"mixed"}},
        "mask_feature": {"network": {"weak"}},
        "mask_correlation": {"network": {"weak", "mixed"}},
    },
    "dcnet": {
        "mask_supervised": _SUPERVISED,
        "mask_cross": {"network": {"labeled", "weak"}},
        "mask_directional": {"network": {"labeled", "weak"}},
        "feature": {"network": {"labeled", "weak"}},
    },
    "abd": {
        "mask_supervised": {"network": {"labeled"}, "network_2": {"strong_2"}},
        "mask_inverse": {"network": {"displaced_1"}, "network_2": {"displaced_1"}},
        "mask_cross": {"network": {"weak"}, "network_2": {"strong_1"}},
        "mask_reliable": {"network": {"displaced_2"}, "network_2": {"displaced_2"}},
    },
    "ss_net": {
        "mask_supervised": _SUPERVISED,
        "mask_smoothness": {"network": {"perturbed"}},
        "mask_separation": {"network": {"labeled", "weak"}},
    },
    "diffrect": {
        "mask_supervised": _SUPERVISED,
        "mask_unlabeled": {"network": {"strong_1", "strong_2"}},
        "rectifier": {},
        "mask_rectified": {"network": {"weak"}},
    },
    "pefat": {
        "label_supervised": {"network": {"strong_2", "labeled"}},
        "label_contrast": {"network": {"strong_2", "labeled", "strong_1", "weak"}},
        "label_trusted": {"network": {"strong_2", "labeled", "strong_1", "weak"}},
        "label_adversarial": {},
        "label_uncertain": {},
    },
    "infomatch": {
        "label_supervised": _SUPERVISED,
        "label_cutmix": {"network": {"mixed_weak"}},
        "label_strong_1": {"network": {"strong_1"}},
        "label_strong_2": {"network": {"strong_2"}},
        "label_agreement": {"network": {"strong_1", "strong_2"}},
    },
    # Which of the views in its one batch, its own tests say.
    "interlude": dict.fromkeys(("label_supervised", "label_unlabeled", "label_delta"), {"network": {"interleaved"}}),
    # Where everything is kept, nothing is uncertain.
    "shrinkmatch": {
        "label_supervised": _SUPERVISED,
        "label_unlabeled": {"network": {"strong"}},
        "label_shrunk": {},
    },
    "hermes_teacher": {
        "mask_supervised": _SUPERVISED,
        "label_supervised": _SUPERVISED,
        "mask_unlabeled": {"network": {"strong"}},
        "label_unlabeled": {"network": {"strong"}},
        "mask_contrast": _BOTH,
        "label_contrast": _BOTH,
        "consistency": {"network": {"strong"}},
    },
    "loco": {
        "mask_supervised": _SUPERVISED,
        "mask_unlabeled": {"network": {"mixed"}},
        "low_contrast": {"network": {"labeled", "weak"}},
    },
}
LEARNT |= {"hermes": LEARNT["hermes_teacher"], "hermes_mean": LEARNT["hermes_teacher"]}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_network_sees_its_views_and_no_other(name):
    model = shaken(variant(name, EVERYTHING_KEPT))
    with watched(model) as found:
        model.compute_loss(*batch(name=name), {})
    assert found.seen() == SEEN[name]
    assert not set(found.images) <= {"labeled"} or name == "supervised"
    own = model.teacher_statistics == "own"
    for each in found.passes:
        assert each.training == (own if each.network.startswith("teacher") else True), each.network
    if name in ASKED:
        assert found.asked("network") == ASKED[name]
    for each in found.passes:
        if each.network.startswith("teacher"):
            unused = set(model.network.head_layers) - TEACHER_HEADS.get(name, set())
            assert set(each.rows) == unused, "the teacher computes heads that nobody uses"


@pytest.mark.parametrize("name", LEARNT)
def test_each_term_learns_from_its_views_and_pseudo_labels_carry_no_gradient(name):
    model = shaken(variant(name, EVERYTHING_KEPT))
    for attention in getattr(model.network.network, "attentions", ()):  # its gates are constant before training
        attention.excite.kernel.assign(ops.ones(attention.excite.kernel.shape))
    x, y = batch(name=name)
    with watched(model) as found:
        model.compute_loss(x, y, {})
    moves = {f"{index}": np.zeros_like(each.images) for index, each in enumerate(found.passes)}
    terms, encode = sorted(model.loss_weights), Extended.encode

    def losses(moved):
        """The terms, with something added to the images of each pass."""
        left = list(moved.values())

        def moved_encode(self, images, **arguments):
            return encode(self, images + left.pop(0), **arguments)

        with mock.patch.object(Extended, "encode", moved_encode), keras.StatelessScope():
            values = model.terms(*model.training_views(x, y)).terms
        return ops.stack([values[name] for name in terms])

    with moving_statistics():
        slopes = jacobian(losses, moves)
    names = found.seen()
    learnt: dict[str, dict[str, set[str]]] = {term: {} for term in terms}
    for index, each in enumerate(found.passes):
        seen, start = names[each.network].pop(0), 0
        for view in seen:
            stop = start + len(found.images[view])
            for term, slope in zip(terms, slopes[f"{index}"], strict=True):
                assert np.isfinite(slope).all(), term
                if np.abs(slope[start:stop]).max() > 0:
                    learnt[term].setdefault(each.network, set()).add(view)
            start = stop
    assert learnt == LEARNT[name]


@pytest.mark.parametrize("name", [name for name, (method, _) in VARIANTS.items() if method != "supervised"])
def test_label_is_what_the_step_kept_on_the_same_views_and_statistics(name):
    quiet = {"noise": 0.0} if name.startswith("mean_teacher") else {"fusion": 0.0} if name == "interlude" else {}
    model = shaken(variant(name, SOME_KEPT, **quiet))
    with moving_statistics():
        with watched(model) as found:
            model.compute_loss(*batch(name=name), {})
        before = [numpy(v.value) for v in model.weights]
        labels = model.label(found.unlabeled, found.strong[0] if found.strong else None)
        again = model.label(found.unlabeled, found.strong[0] if found.strong else None)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), value, err_msg=variable.path)
    assert set(labels) == set(found.losses.pseudo) == set(model.learnt_heads)
    for head, kept in found.losses.pseudo.items():
        shape = numpy(found.unlabeled.inside).shape
        assert numpy(kept.labels).shape == (shape if head == "mask" else shape[:1])
        for field in ("labels", "kept", "inside"):
            ours, theirs, repeated = (numpy(getattr(each, field)) for each in (kept, labels[head], again[head]))
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{head} {field}")
            np.testing.assert_array_equal(theirs, repeated)
        np.testing.assert_allclose(numpy(kept.confidence), numpy(labels[head].confidence), atol=1e-5)
    mask = found.losses.pseudo.get("mask")
    if mask is not None and VARIANTS[name][0] in SOME_KEPT:
        share = numpy(mask.kept).sum() / numpy(mask.inside).sum()
        assert 0.02 < share < 0.98 and len(np.unique(numpy(mask.labels))) == 2, share


@pytest.mark.parametrize("name", METHODS)
def test_an_unlabelled_image_that_is_not_looked_at_is_not_drawn(name):
    model = variant(name)
    with watched(model) as found:
        model.compute_loss(*batch(name=name), {})
    assert found.unlabeled.drawn != model.supervised_only
