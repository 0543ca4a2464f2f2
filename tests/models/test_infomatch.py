"""InfoMatch on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import InfoMatch
from tests.gradients import jacobian
from tests.layers.test_self_adaptive_threshold import ByHand
from tests.losses.helpers import finite_difference, softmax
from tests.losses.test_logit_agreement import agreement_by_hand
from tests.losses.test_mixed_cross_entropy import mixed_by_hand
from tests.models import pixelwise as pixels
from tests.models.common import batches, made
from tests.models.methods import batch, watched
from tests.models.pixelwise import array, cross_entropies, losses_of, mean_cross_entropy, mixed, number, numbers

TERMS = ("label_supervised", "label_cutmix", "label_strong_1", "label_strong_2", "label_agreement")
SIZE = 6


def means(images):
    return np.asarray(images, "float64").mean((1, 2))


class Example:
    """A random batch whose logits are the means of its images, two strong views of it, and boxes."""

    def __init__(self, monkeypatch, seed=0, unlabeled=4, **arguments):
        self.inputs, self.targets = pixels.batch(seed, unlabeled=unlabeled, size=SIZE)
        for name in ("labeled_area", "unlabeled_area"):
            del self.inputs[name]
        random = np.random.default_rng(seed)
        # Means that say something.
        for name in ("labeled", "unlabeled"):
            self.inputs[name] += random.normal(0, 1.5, (len(self.inputs[name]), 1, 1, 3)).astype("float32")
        self.inputs["unlabeled"][:1] /= 4  # one that is less sure
        weak = self.inputs["unlabeled"]
        self.strong = [(weak + random.normal(0, 1, (unlabeled, 1, 1, 3))).astype("float32") for _ in range(2)]
        self.boxes = pixels.random_boxes(seed + 1, unlabeled, SIZE)
        self.model = pixels.pixelwise(InfoMatch, size=SIZE, **{"threshold_momentum": 0.3, **arguments})
        left = []

        def strong(images):
            left[:] = left or list(self.strong)
            return ops.convert_to_tensor(left.pop(0))

        monkeypatch.setattr(self.model.cutmix, "boxes", lambda *_: ops.convert_to_tensor(self.boxes))
        monkeypatch.setattr(self.model.views, "strong", strong)
        self.inside = np.ones(unlabeled)

    @property
    def images(self):
        weak = self.inputs["unlabeled"]
        return [self.inputs["labeled"], weak, mixed(weak, self.boxes), *self.strong]

    @property
    def logits(self):
        """z^l, z^w, z^m, z^1, z^2."""
        return [means(each) for each in self.images]

    @property
    def thresholds(self):
        """After this batch."""
        hand = ByHand(3, self.model.threshold_momentum)
        hand.update(softmax(self.logits[1]), self.inside)
        return hand

    def pseudo(self):
        p = softmax(self.logits[1])
        return p.argmax(-1), self.thresholds.kept(p, self.inside).astype("float64")

    def terms(self, logits=None):
        on_labeled, _, on_mixed, *strong = self.logits if logits is None else logits
        labels, kept = self.pseudo()
        counted = np.where(self.inside > 0, labels, 255)
        share = 1 - self.boxes.mean((1, 2))
        partners = (np.arange(len(labels)) - 1) % len(labels)
        shown = self.inside > 0
        return {
            "label_supervised": mean_cross_entropy(self.targets["label"], on_labeled),
            "label_cutmix": mixed_by_hand(counted, on_mixed, kept, share, partners),
            **{
                f"label_strong_{j}": (kept * cross_entropies(counted, z)).sum() / max(shown.sum(), 1)
                for j, z in enumerate(strong, 1)
            },
            "label_agreement": agreement_by_hand(*(z[shown] for z in strong)) if shown.any() else 0.0,
        }


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_loss(monkeypatch, seed):
    example = Example(monkeypatch, seed, unlabeled=1 if seed == 3 else 5)
    found = losses_of(example.model, example.inputs, example.targets)
    terms, expected = numbers(found.terms), example.terms()
    assert tuple(terms) == TERMS
    np.testing.assert_allclose(list(terms.values()), list(expected.values()), rtol=1e-4)
    labels, kept = example.pseudo()
    np.testing.assert_array_equal(array(found.pseudo["label"].labels), labels)
    np.testing.assert_array_equal(array(found.pseudo["label"].kept), kept)
    assert 0 < kept.sum() < len(kept) or seed == 3
    figures = numbers(found.figures)
    np.testing.assert_allclose(figures["global_threshold"], example.thresholds.tau, rtol=1e-5)
    shown = [figures[f"threshold_class_{c}"] for c in range(3)]
    np.testing.assert_allclose(shown, example.thresholds.thresholds, rtol=1e-5)
    weights = dict(example.model.loss_weights)
    assert weights == dict(zip(TERMS, (1.0, 1.0, 0.5, 0.5, 0.002), strict=True))
    example = Example(monkeypatch, seed, unlabeled=1 if seed == 3 else 5)
    total = sum(weights[name] * value for name, value in expected.items())
    np.testing.assert_allclose(pixels.total_of(example.model, example.inputs, example.targets), total, rtol=1e-4)


def test_images_without_anything_and_missing_labels_leave_the_means(monkeypatch):
    example = Example(monkeypatch, 5)
    example.inputs["unlabeled_area"] = np.array([(0, 0, 0, 0), *[(0, 0, SIZE, SIZE)] * 3], "int32")
    example.inputs["unlabeled"][0] = 0
    example.inside[0] = 0
    example.targets["label"][0] = 255
    found = losses_of(example.model, example.inputs, example.targets)
    np.testing.assert_allclose(list(numbers(found.terms).values()), list(example.terms().values()), rtol=1e-4)


def test_the_weak_view_has_no_slope_and_each_term_those_of_its_views(monkeypatch):
    example = Example(monkeypatch, 6)
    model = example.model
    views = pixels.views_of(model, example.inputs, example.targets)
    given = {f"{i}": z.astype("float32") for i, z in enumerate(example.logits)}

    def entries(values):
        outputs = [{"label_logits": z} for z in values.values()]
        with monkeypatch.context() as patch, keras.StatelessScope():
            patch.setattr(model, "run", lambda *_, **__: outputs)
            terms = model.terms(*views).terms
        return ops.stack([terms[name] for name in TERMS])

    found = jacobian(entries, given)
    moved = {term: {int(i) for i in given if found[i][index].any()} for index, term in enumerate(TERMS)}
    assert moved == dict(zip(TERMS, ({0}, {2}, {3}, {4}, {3, 4}), strict=True))
    for index, term in enumerate(TERMS):
        for place, z in given.items():
            if int(place) == 1:
                continue

            def reading(x, place=place, term=term):
                return example.terms([x if i == int(place) else each for i, each in enumerate(example.logits)])[term]

            expected = finite_difference(reading, z)
            np.testing.assert_allclose(found[place][index], expected, rtol=2e-3, atol=1e-5, err_msg=term)


def test_one_pass_over_five_views_of_which_the_mixed_are_weak(monkeypatch):
    example = Example(monkeypatch, 7)
    losses_of(example.model, example.inputs, example.targets)
    ((images, training),) = pixels.seen(example.model.network)
    assert training is True and not example.model.teacher.network.log.passes
    np.testing.assert_allclose(images, np.concatenate(example.images), rtol=1e-5)


def test_all_views_of_an_image_have_one_geometry():
    model = made(InfoMatch, num_labels=3)
    with watched(model) as found:
        model.compute_loss(*batch(labels=3), {})
    assert len(found.strong) == 2
    for view in found.strong:
        np.testing.assert_array_equal(array(view.geometry["rows"]), array(found.unlabeled.geometry["rows"]))
    assert (array(found.strong[0].images) != array(found.strong[1].images)).any()


def test_the_second_strong_view_is_never_the_host_s(monkeypatch):
    example = Example(monkeypatch, 8)
    example.inputs["unlabeled_strong"] = example.inputs["unlabeled"] + 1
    losses_of(example.model, example.inputs, example.targets)
    ((images, _),) = pixels.seen(example.model.network)
    np.testing.assert_allclose(images[-8:-4], example.inputs["unlabeled_strong"], rtol=1e-5)
    np.testing.assert_allclose(images[-4:], example.strong[0], rtol=1e-5)


def test_thresholds_move_in_a_step_alone_before_they_select(monkeypatch):
    example = Example(monkeypatch, 9)
    model, p = example.model, softmax(example.logits[1])
    _, unlabeled = pixels.views_of(model, example.inputs, example.targets)
    assert array(model.label(unlabeled)["label"].kept).all()  # of the student, at 1/C
    np.testing.assert_allclose(number(model.filter.global_threshold), 1 / 3, rtol=1e-6)
    found = losses_of(model, example.inputs, example.targets)
    np.testing.assert_array_equal(array(found.pseudo["label"].kept), example.thresholds.kept(p, example.inside))
    np.testing.assert_allclose(array(model.filter.class_means), example.thresholds.means, rtol=1e-5)
    oracle = Example(monkeypatch, 9, pseudo_labels="truth")
    oracle.targets["unlabeled_label"] = np.array([0, 255, 2, 1], "int32")
    found = losses_of(oracle.model, oracle.inputs, oracle.targets)
    np.testing.assert_allclose(number(oracle.model.filter.global_threshold), 1 / 3, rtol=1e-6)
    share, partners = 1 - oracle.boxes.mean((1, 2)), (np.arange(4) - 1) % 4
    truth = oracle.targets["unlabeled_label"]
    expected = mixed_by_hand(truth, oracle.logits[2], truth != 255, share, partners)
    np.testing.assert_allclose(numbers(found.terms)["label_cutmix"], expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:InfoMatch with two classes")
def test_the_student_labels_and_the_average_predicts():
    model = made(InfoMatch)
    assert model.predictor is model.teacher and model.labeler is model.network
    alone = made(InfoMatch, teacher_momentum=None)
    assert alone.teacher is None and alone.predictor is alone.network


@pytest.mark.parametrize("placement", ["inside", "clipped"])
def test_boxes_cover_up_to_half_of_every_image(placement):
    model = made(InfoMatch, num_labels=3, cutmix_placement=placement)
    assert model.cutmix.get_config()["placement"] == placement
    boxes = array(model.cutmix.boxes(2000, 64, 64))
    area = boxes.mean((1, 2))
    assert area.max() < 0.53
    if placement == "inside":  # uniform in (0, 1/2)
        np.testing.assert_allclose(np.quantile(area, (0.25, 0.5, 0.75)), (0.125, 0.25, 0.375), atol=0.03)
        heights = boxes.max(2).sum(1)
        np.testing.assert_allclose(heights, boxes.max(1).sum(1), atol=1)  # as wide as high
    else:
        assert area.mean() < 0.22  # what reaches over the edge is cut


def test_two_classes_leave_the_agreement_without_slope(monkeypatch):
    with pytest.warns(UserWarning, match="InfoMatch with two classes: the agreement of the strong views has no grad"):
        model = pixels.pixelwise(InfoMatch, size=SIZE, num_labels=2)
    slopes = {}
    for classes in (2, 3):
        if classes == 3:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                model = pixels.pixelwise(InfoMatch, size=SIZE)
        inputs, targets = pixels.batch(10, size=SIZE)
        random = np.random.default_rng(10)
        monkeypatch.setattr(
            model.views, "strong", lambda x, r=random: x + r.normal(size=(3, 1, 1, 3)).astype("float32")
        )
        views = pixels.views_of(model, inputs, {**targets, "label": targets["label"] % 2})
        kernel = pixels.kernel_of(model.network, "label")
        kernel.assign(np.random.default_rng(0).normal(size=tuple(kernel.shape)))
        slopes[classes] = pixels.slope(kernel, lambda m=model, v=views: m.terms(*v).terms["label_agreement"])
        assert numbers(model.terms(*views).terms)["label_agreement"] > 0
    np.testing.assert_array_equal(slopes[2], 0)
    assert np.abs(slopes[3]).max() > 1e-3


@pytest.mark.parametrize("case", ["nothing inside", "no labels", "nothing kept", "one class", "all alike"])
def test_degenerate_batches_stay_finite(monkeypatch, case):
    example = Example(monkeypatch, 11, threshold_momentum=1.0)
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.zeros((4, 4), "int32")
    elif case == "no labels":
        example.targets["label"][:] = 255
    elif case == "nothing kept":
        example.model.filter.global_threshold.assign(1.0)
        example.model.filter.class_means.assign(np.full(3, 1 / 3))
    elif case == "one class":
        example.inputs["unlabeled"][..., 0] += 50
    else:
        for images in (example.inputs["labeled"], example.inputs["unlabeled"], *example.strong):
            images[:] = 0
    views = pixels.views_of(example.model, example.inputs, example.targets)
    kernel = pixels.kernel_of(example.model.network, "label")
    slope = pixels.slope(kernel, lambda: sum(example.model.terms(*views).terms.values()))
    assert np.isfinite(slope).all()
    found = numbers(losses_of(example.model, example.inputs, example.targets).terms)
    assert np.isfinite(list(found.values())).all()
    if case in ("nothing inside", "nothing kept"):
        assert [found[name] for name in TERMS[1:4]] == [0, 0, 0]
    if case == "nothing inside":
        assert found["label_agreement"] == 0
    assert (found["label_supervised"] == 0) == (case == "no labels")


def test_defaults():
    model = made(InfoMatch, num_labels=3)
    assert (model.threshold_momentum, model.lambda_cutmix, model.lambda_strong) == (0.999, 1.0, 0.5)
    assert (model.lambda_agreement, model.cutmix_placement, model.teacher_momentum) == (0.002, "inside", 0.999)
    assert (model.filter.momentum, model.filter.num_labels) == (0.999, 3)
    assert (model.cutmix.probability, model.cutmix.area, model.cutmix.aspect) == (1.0, (1e-6, 0.5), (1.0, 1.0))


@pytest.mark.filterwarnings("ignore:InfoMatch with two classes")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "both"}, "`tasks` of InfoMatch can only be 'classification', found 'both'"),
        ({"threshold_momentum": 1.1}, r"`threshold_momentum` must be within \[0, 1\], found 1.1"),
        ({"lambda_cutmix": -1}, "`lambda_cutmix` must be a number of at least 0, found -1"),
        ({"lambda_strong": float("nan")}, "`lambda_strong` must be a number of at least 0, found nan"),
        ({"lambda_agreement": "much"}, "`lambda_agreement` must be a number of at least 0, found 'much'"),
        ({"cutmix_placement": "cliped"}, "`cutmix_placement` must be one of .*found 'cliped'. Did you mean 'clipped'"),
        ({"teacher_momentum": 1.0}, r"`teacher_momentum` must be in \[0, 1\) or None, found 1.0"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(InfoMatch, **wrong)


def test_grey_images_and_other_batches_train():
    model = made(InfoMatch, num_labels=5, total_steps=3, cutmix_placement="clipped")
    model.compile()
    data = batches(steps=3, batch_size=2, unlabeled=5, labels=5, channels=1)
    history = model.fit(data, verbose=0).history
    assert np.isfinite([values for values in history.values()]).all()
    assert tuple(array(model.infer(data.at(0)[0]["labeled"])["label"]).shape) == (2, 5)
