"""The hidden truth of the unlabelled images, for every method: used on request only, and moved as its images are."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses import reliable_cross_entropy
from keras_semimed.models import METHODS, corrmatch
from tests.models.common import SIZE
from tests.models.methods import EVERYTHING_KEPT, U, batch, eager_step, numpy, shaken, state_of, variant

LEARNING = [name for name in METHODS if name != "supervised"]
# Views that show every pixel as it is, so that the colour of a pixel can stand for its class.
PLAIN = {"jitter_probability": 0.0, "blur_probability": 0.0, "scale": (1.0, 1.0), "shift": 0.0, "vertical_flip": True}
MIXING = ("fixmatch", "unimatch", "augseg", "u2pl", "corrmatch", "abd", "cps_cutmix", "loco")
# The consistency between the tasks (Hermes, Eq. 14), between decoders and of changes from view to view (InterLUDE),
# smoothness (SS-Net), features that imitate others, what is learnt with labelled masks alone (ABD's inverse
# displacement) and from uncertain images alone (ShrinkMatch).
WITHOUT_LABELS = {
    *("consistency", "mask_directional", "mask_smoothness", "feature", "mask_inverse"),
    *("label_delta", "label_shrunk"),
}
# The contrast of whole images with themselves and what is learnt where there is no label (PEFAT), the agreement of two
# views (InfoMatch).
WITHOUT_LABELS_OF = {"pefat": {"label_contrast", "label_uncertain"}, "infomatch": {"label_agreement"}}


def with_truth(seed: int, name: str | None = None) -> tuple[dict, dict]:
    """A batch that brings the truth of its unlabelled images, which has nothing to do with what they show."""
    x, y = batch(name=name)
    random = np.random.default_rng(seed)
    masks = random.integers(0, 2, (U, SIZE, SIZE)).astype("uint8")
    return x, {**y, "unlabeled_mask": masks, "unlabeled_label": np.array([seed % 2, (seed // 2) % 2], "int32")}


def shown_truth(seed: int) -> tuple[dict, dict]:
    """A batch of images that show their own masks: 40 for class 0, 140 for class 1."""
    x, y = with_truth(seed)
    for half, masks in (("labeled", y["mask"]), ("unlabeled", y["unlabeled_mask"])):
        x[half] = np.repeat(40 + 100 * masks[..., None], 3, axis=-1).astype("uint8")
    return x, y


@pytest.mark.parametrize("name", METHODS)
def test_hidden_truth_changes_no_weight_unless_it_is_asked_for(name):
    model = shaken(variant(name, EVERYTHING_KEPT))
    start, ends = model.get_weights(), []
    for seed in (None, 1, 2):
        model.set_weights(start)
        model.compile(run_eagerly=True)
        for _ in range(2):
            eager_step(model, *(batch(name=name) if seed is None else with_truth(seed, name)))
        ends.append(state_of(model))
    for hidden in ends[1:]:
        for first, second in zip(ends[0], hidden, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", LEARNING)
def test_with_the_switch_the_loss_moves_with_the_truth(name):
    model = shaken(variant(name, EVERYTHING_KEPT, pseudo_labels="truth"))
    start, terms = model.get_weights(), []
    for seed in (1, 3, 1):
        model.set_weights(start)
        model.epoch_figures.reset_state()
        model.compute_loss(*with_truth(seed, name), {})
        figures = {key: float(numpy(value)) for key, value in model.epoch_figures.result().items()}
        terms.append({term: figures[term] for term in model.loss_weights})
    assert terms[0] == terms[2]
    moved = {term for term in terms[0] if terms[0][term] != terms[1][term]}
    without = WITHOUT_LABELS | WITHOUT_LABELS_OF.get(name, set())
    assert moved == {term for term in terms[0] if not term.endswith("supervised")} - without


@pytest.mark.parametrize("name", LEARNING)
def test_the_truth_is_sure_and_what_is_unknown_is_not_kept(name):
    model = variant(name, EVERYTHING_KEPT, pseudo_labels="truth")
    x, y = with_truth(1, name)
    y["unlabeled_mask"][0] = 255
    y["unlabeled_label"][1] = 255
    found = model.terms(*model.training_views(x, y))
    assert set(found.pseudo) == set(model.learnt_heads)
    for head, pseudo in found.pseudo.items():
        labels, kept, inside = (numpy(getattr(pseudo, field)) for field in ("labels", "kept", "inside"))
        unknown, known = (0, 1) if head == "mask" else (1, 0)
        assert not kept[unknown].any() and kept[known].any()
        np.testing.assert_array_equal(kept, inside * (labels != 255))
        assert (numpy(pseudo.confidence)[kept > 0] == 1).all()
        one_hot = numpy(pseudo.probabilities)
        np.testing.assert_array_equal(one_hot.max(-1), labels != 255)
        np.testing.assert_array_equal(one_hot.argmax(-1)[kept > 0], labels[kept > 0])


@pytest.mark.parametrize("name", LEARNING)
def test_a_truth_that_is_missing_is_named_before_anything_is_drawn(name):
    model = variant(name, pseudo_labels="truth")
    before = model.get_weights()
    with pytest.raises(ValueError, match="pseudo_labels='truth' needs the targets.*unlabeled_.*unlabeled_targets=True"):
        model.compute_loss(*batch(name=name), {})
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", MIXING)
def test_the_truth_is_warped_and_mixed_as_its_image_is(name):
    """Every image shows its own mask: so must every mixed image the mask that it is learnt with."""
    model = variant(name, pseudo_labels="truth", views=PLAIN)
    run, encode, decode, cross_entropy = model.run, model.encode, model.decode, PseudoLabels.cross_entropy
    answers: list[tuple] = []  # logits, and the images that they are of
    learnt: list[tuple] = []  # logits, and the labels and the area that they are learnt with

    def images_of(views):
        return [numpy(getattr(view, "images", view)) for view in views]

    def watch_run(*views, **arguments):
        found = run(*views, **arguments)
        answers.extend((each.get("mask_logits"), seen) for each, seen in zip(found, images_of(views), strict=True))
        return found

    def watch_encode(*views, **arguments):
        features = encode(*views, **arguments)
        encoded.extend(images_of(views))
        return features

    def watch_decode(*features, **arguments):
        found = decode(*features, **arguments)
        # UniMatch and CorrMatch decode the weak view's features once more, with channels dropped.
        seen = [*encoded, *encoded[1:2]]
        answers.extend((each["mask_logits"], images) for each, images in zip(found, seen, strict=True))
        return found

    def watch_labels(pseudo, logits):
        if len(pseudo.labels.shape) == 3:
            learnt.append((logits, numpy(pseudo.labels), numpy(pseudo.inside)))
        return cross_entropy(pseudo, logits)

    def watch_cross(first, second, inside, labels_1, labels_2):
        learnt.extend(((first, numpy(labels_2), numpy(inside)), (second, numpy(labels_1), numpy(inside))))
        return first[0, 0, 0, 0] * 0

    def watch_reliable(labels, logits, reliable):
        learnt.append((logits, numpy(labels), numpy(labels != 255)))
        return reliable_cross_entropy(labels, logits, reliable)

    def watch_spread(outputs):
        found = spread(outputs)
        answers.append((found, next(seen for given, seen in answers if given is outputs["mask_logits"])))
        return found

    encoded: list[np.ndarray] = []
    spread = corrmatch.spread_logits
    intensity = getattr(model, "intensity", model.views)  # AugSeg's colours
    with (
        mock.patch.object(intensity, "call", lambda images, *_, **__: images),
        mock.patch.object(model, "run", watch_run),
        mock.patch.object(model, "encode", watch_encode),
        mock.patch.object(model, "decode", watch_decode),
        mock.patch.object(PseudoLabels, "cross_entropy", watch_labels),
        mock.patch.object(model, "cross_supervision", watch_cross, create=True),
        mock.patch("keras_semimed.models.u2pl.reliable_cross_entropy", watch_reliable),
        mock.patch.object(corrmatch, "spread_logits", watch_spread),
    ):
        labeled, unlabeled = model.training_views(*shown_truth(1))
        model.terms(labeled, unlabeled)
    weak, mixed = numpy(unlabeled.images)[..., 0], set()
    assert learnt
    for logits, labels, inside in learnt:
        (images,) = (seen[..., 0] for given, seen in answers if given is logits)
        shown = np.where(inside > 0, np.where(labels == 1, 140.0, 40.0), 0.0)
        np.testing.assert_allclose(images, shown, atol=1e-2, err_msg="an image is learnt with labels of another")
        if shown.shape != weak.shape or not np.allclose(shown, weak, atol=1e-2):
            mixed.add(shown.tobytes())
    assert len(mixed) == (2 if name == "unimatch" else 1), "each strong stream has boxes of its own"


def test_views_of_both_halves_carry_their_targets_with_the_geometry():
    model = variant("fixmatch", pseudo_labels="truth", views=PLAIN)
    x, y = shown_truth(1)
    for view in model.training_views(x, y):
        others = [model.weak(view) for _ in range(4)]
        assert any(np.abs(numpy(other.images) - numpy(view.images)).max() > 0 for other in others)
        for each in (view, *others, model.strong(view)):
            masks, images = numpy(each.masks), numpy(each.images)[..., 0]
            np.testing.assert_allclose(images, np.where(masks == 255, 0, 40 + 100 * masks), atol=1e-2)
            np.testing.assert_array_equal(masks != 255, numpy(each.inside) > 0)
    hidden = variant("fixmatch").training_views(x, y)[1]
    assert hidden.masks is None and hidden.labels is None
