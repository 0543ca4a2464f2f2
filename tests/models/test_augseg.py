"""AugSeg on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import AdaptiveBoxes, IntensityDraw
from keras_semimed.layers.intensity import INTENSITIES
from keras_semimed.models import AugSeg
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.pixelwise import array, batch, cross_entropies, losses_of, mean_cross_entropy, numbers

TAU = 0.6
UNIFORM = 0.4
SCALE = 0.02
"""Logits by grey level."""


def intensities(*names):
    """One operation an image, each of the same strength."""
    places = np.array([[INTENSITIES.index(name)] for name in names], "int32")
    ones = np.ones(places.shape, "float32")
    return IntensityDraw(ones[:, 0].astype("int32"), places, UNIFORM * ones, ones)


def drawn_boxes(seed, count, injected, partners=None):
    rng = np.random.default_rng(seed)
    partners = rng.permutation(count) if partners is None else np.array(partners)
    boxes = [pixels.random_boxes(seed + k, count) for k in (1, 2)]
    for each in boxes:
        each[0, 1:4, 2:] = 1  # the first image has a box as well
    return AdaptiveBoxes(partners.astype("int32"), np.array(injected, "float32"), *boxes)


def tensors(values):
    return type(values)(*map(ops.convert_to_tensor, values))


def model_with(monkeypatch, boxes=None, draw=None, **arguments):
    """A teacher that takes the student's classes one further, with boxes and intensities as given."""
    model = pixels.pixelwise(AugSeg, **{"threshold": TAU, **arguments})
    pixels.kernel_of(model.network).assign(SCALE * np.eye(3))
    pixels.kernel_of(model.teacher).assign(SCALE * np.roll(np.eye(3), 1, axis=1))
    if boxes is not None:
        model.asked = []
        monkeypatch.setattr(
            model.cutmix, "draw", lambda size, confidence: model.asked.append((size, confidence)) or tensors(boxes)
        )
    if draw is not None:
        monkeypatch.setattr(model.intensity, "draw", lambda count: tensors(draw))
    return model


def by_hand(unlabeled, labeled, boxes):
    """Injection, then mixing of the results into the images as they were."""
    injected, result = unlabeled.copy(), unlabeled.copy()
    for u, row, column in np.ndindex(*boxes.injection_boxes.shape):
        if boxes.injected[u] and boxes.injection_boxes[u, row, column]:
            injected[u, row, column] = labeled[boxes.partners[u] % len(labeled), row, column]
    for u, row, column in np.ndindex(*boxes.mixing_boxes.shape):
        if boxes.mixing_boxes[u, row, column]:
            result[u, row, column] = injected[boxes.partners[u], row, column]
    return result


class Example:
    """A random batch in grey levels, with what is drawn for it."""

    def __init__(self, seed, labeled=2, unlabeled=3, injected=(1, 0, 1), partners=None):
        self.inputs, self.targets = batch(seed, labeled, unlabeled)
        for half in ("labeled", "unlabeled"):
            self.inputs[half] = np.clip(128 + 60 * self.inputs[half], 1, 250)
        self.boxes = drawn_boxes(seed, unlabeled, injected, partners)
        self.draw = intensities(*("brightness", "identity", "color")[:unlabeled])
        self.inside = pixels.area_mask(self.inputs["unlabeled_area"], 5)

    def model(self, monkeypatch, **arguments):
        return model_with(monkeypatch, self.boxes, self.draw, **arguments)

    def strong(self):
        """Brightness f x, nothing, colour l + f (x - l)."""
        factor, images = 0.95 - 0.9 * UNIFORM, self.inputs["unlabeled"].astype("float64")
        luma = images @ np.array([[0.299], [0.587], [0.114]])
        changed = factor * images[:1], images[1:2], luma[2:] + factor * (images[2:] - luma[2:])
        return np.concatenate(changed)

    def mixed_images(self):
        return by_hand(self.strong(), self.inputs["labeled"].astype("float64"), self.boxes)

    def probabilities(self):
        """The teacher's."""
        return softmax(SCALE * np.roll(self.inputs["unlabeled"].astype("float64"), 1, axis=-1))

    def unlabeled_term(self, logits=None, tau=TAU):
        """L_u."""
        logits = SCALE * self.mixed_images() if logits is None else logits
        p, masks = self.probabilities(), self.targets["mask"]
        labels = np.where(self.inside > 0, p.argmax(-1), 255)
        labels = by_hand(labels, masks, self.boxes)
        confidence = by_hand(p.max(-1), np.ones(masks.shape), self.boxes)
        sure = confidence >= tau
        return np.sum(sure * cross_entropies(labels, logits)) / max(np.sum(labels != 255), 1)


@pytest.mark.parametrize("seed", range(2))
def test_loss(monkeypatch, seed):
    example = Example(seed)
    model = example.model(monkeypatch, lambda_unlabeled=2.0)
    known = mean_cross_entropy(example.targets["mask"], SCALE * example.inputs["labeled"])
    hidden = example.unlabeled_term()
    found = numbers(losses_of(model, example.inputs, example.targets).terms)
    assert list(found) == ["mask_supervised", "mask_unlabeled"] and hidden > 0.1
    np.testing.assert_allclose(list(found.values()), [known, hidden], rtol=1e-4)
    total = pixels.total_of(model, example.inputs, example.targets)
    np.testing.assert_allclose(total, known + 2 * hidden, rtol=1e-4)


def test_the_numbers_of_the_specification(monkeypatch):
    # Four pixels; the last one is padding. Losses 1, 3, 5, 7 of class 0.
    confidence, losses = np.array([[0.99, 0.99], [0.5, 0.99]]), np.array([[1.0, 3.0], [5.0, 7.0]])
    weak = np.log(np.stack([confidence, (1 - confidence) * 0.6, (1 - confidence) * 0.4], -1))[None]
    student = np.exp(-losses)
    mixed = np.log(np.stack([student, (1 - student) / 2, (1 - student) / 2], -1))[None].astype("float32")
    none = np.zeros((1, 2, 2), "float32")
    boxes = AdaptiveBoxes(np.zeros(1, "int32"), np.zeros(1, "float32"), none, none)
    model = model_with(monkeypatch, boxes, size=2, threshold=0.95)
    for network in (model.network, model.teacher):
        pixels.take_channels(network, 0)
    monkeypatch.setattr(model.intensity, "call", lambda images, inside: ops.convert_to_tensor(mixed))
    labeled, unlabeled = pixels.views_of(
        model,
        {"labeled": np.zeros((1, 2, 2, 3), "float32"), "unlabeled": weak.astype("float32")},
        {"mask": np.zeros((1, 2, 2), "int32")},
    )
    inside = ops.convert_to_tensor(np.array([[[1, 1], [1, 0]]], "float32"))
    terms = numbers(model.terms(labeled, unlabeled._replace(inside=inside)).terms)
    np.testing.assert_allclose(terms["mask_unlabeled"], 4 / 3, rtol=1e-5)


@pytest.mark.parametrize(("labeled", "unlabeled"), [(1, 3), (3, 1), (2, 3)])
def test_labelled_and_unlabelled_images_may_differ_in_number(monkeypatch, labeled, unlabeled):
    example = Example(10, labeled, unlabeled, injected=(1,) * unlabeled, partners=np.roll(np.arange(unlabeled), 1))
    found = numbers(losses_of(example.model(monkeypatch), example.inputs, example.targets).terms)
    np.testing.assert_allclose(found["mask_unlabeled"], example.unlabeled_term(), rtol=1e-4)


def test_what_each_network_sees(monkeypatch):
    example = Example(11)
    model = example.model(monkeypatch)
    losses_of(model, example.inputs, example.targets)
    ((weak, training),) = pixels.seen(model.teacher)
    assert training is False
    np.testing.assert_allclose(weak, example.inputs["unlabeled"], rtol=1e-6)
    ((images, training),) = pixels.seen(model.network)
    assert training is True
    expected = np.concatenate([example.inputs["labeled"], example.mixed_images()])
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-5)
    ((size, confidence),) = model.asked
    p = example.probabilities()
    certainty = p.max(-1) * (1 + (p * np.log(p)).sum(-1) / np.log(3))
    expected = [certainty[u][example.inside[u] > 0].mean() for u in range(3)]
    assert size == 5
    np.testing.assert_allclose(array(confidence), expected, rtol=1e-4)


def test_two_images_of_which_the_first_gets_a_labelled_box(monkeypatch):
    example = Example(12, labeled=2, unlabeled=2, injected=(1, 0), partners=(1, 0))
    model = example.model(monkeypatch)
    example.inputs["labeled"][1] = 77
    losses_of(model, example.inputs, example.targets)
    ((images, _),) = pixels.seen(model.network)
    first, second = images[2], images[3]
    assert not (first == 77).any()
    meet = example.boxes.mixing_boxes[1] * example.boxes.injection_boxes[0]
    assert meet.any() and not meet.all()
    np.testing.assert_array_equal((second == 77).all(-1), meet > 0)


@pytest.mark.parametrize("sure", [False, True])
def test_images_that_the_teacher_is_sure_of_get_no_labelled_box(monkeypatch, sure):
    inputs, targets = batch(13)
    inputs["unlabeled"] = np.zeros_like(inputs["unlabeled"])
    inputs["unlabeled"][..., 0] = 200 * sure
    inputs["labeled"][:] = 77
    model = model_with(monkeypatch, operations=1, injection_beta=(1, 2), mixing_beta=(1, 1))
    pixels.kernel_of(model.teacher).assign(np.eye(3))
    monkeypatch.setattr(model.intensity, "draw", lambda count: tensors(intensities(*["identity"] * 3)))
    shown = []
    for _ in range(6):
        losses_of(model, inputs, targets)
        ((images, _),) = pixels.seen(model.network)
        shown.append((images[2:] == 77).any())
    assert any(shown) is not sure


def test_labelled_pixels_pass_any_threshold_and_unknown_ones_leave_the_mean(monkeypatch):
    example = Example(14, injected=(1, 1, 1))
    model = example.model(monkeypatch, threshold=1.01)
    example.targets["mask"][:, ::2] = 255
    mixed, everything = example.mixed_images(), example.boxes
    labels = by_hand(np.full(example.inside.shape, -1), example.targets["mask"], everything)
    valid = np.where(labels == -1, by_hand(example.inside, np.ones((2, 5, 5)), everything), labels != 255)
    truth = (labels != -1) * (labels != 255)
    assert truth.any() and (labels == 255).any()
    losses = cross_entropies(np.where(truth, labels, 255), SCALE * mixed)
    found = numbers(losses_of(model, example.inputs, example.targets).terms)
    np.testing.assert_allclose(found["mask_unlabeled"], losses.sum() / valid.sum(), rtol=1e-4)


def test_slopes_reach_the_student_alone(monkeypatch):
    example = Example(15)
    model = example.model(monkeypatch)
    views = pixels.views_of(model, example.inputs, example.targets)
    for name, reading in {
        "mask_supervised": lambda kernel: mean_cross_entropy(
            example.targets["mask"], example.inputs["labeled"] @ kernel
        ),
        "mask_unlabeled": lambda kernel: example.unlabeled_term(example.mixed_images() @ kernel),
    }.items():
        found = pixels.slope(pixels.kernel_of(model.network), lambda name=name: model.terms(*views).terms[name])
        expected = finite_difference(reading, SCALE * np.eye(3), step=1e-7)
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-4, err_msg=name)
        teacher = pixels.kernel_of(model.teacher)
        assert not pixels.slope(teacher, lambda name=name: model.terms(*views).terms[name]).any()


@pytest.mark.parametrize("case", ["above one", "nothing inside", "zero", "one class", "no labels"])
def test_degenerate_batches(monkeypatch, case):
    example = Example(16, injected=(0, 0, 0) if case in ("above one", "nothing inside") else (1, 0, 1))
    if case == "nothing inside":
        example.inputs["unlabeled_area"] = np.ones_like(example.inputs["unlabeled_area"])
        example.inside = np.zeros_like(example.inside)
    if case == "one class":
        example.inputs["unlabeled"][..., 1:] *= 0.02
        example.inputs["unlabeled"][..., 0] = 200
    if case == "no labels":
        example.targets["mask"][:] = 255
    tau = {"above one": 1.01, "zero": 0.0}.get(case, TAU)
    model = example.model(monkeypatch, threshold=tau)
    views = pixels.views_of(model, example.inputs, example.targets)
    found = numbers(model.terms(*views).terms)
    np.testing.assert_allclose(found["mask_unlabeled"], example.unlabeled_term(tau=tau), rtol=1e-4, atol=1e-7)
    if case in ("above one", "nothing inside"):
        assert found["mask_unlabeled"] == 0
        assert not pixels.slope(
            pixels.kernel_of(model.network), lambda: model.terms(*views).terms["mask_unlabeled"]
        ).any()
    assert (found["mask_supervised"] == 0) == (case == "no labels")
    assert np.isfinite(pixels.total_of(model, example.inputs, example.targets))


def test_the_strong_view_is_the_method_s_own_and_of_what_is_inside(monkeypatch):
    example = Example(17, injected=(0, 0, 0))
    seen = []
    model = example.model(monkeypatch)
    monkeypatch.setattr(model.intensity, "call", lambda images, inside: seen.append(inside) or images + 1.0)
    monkeypatch.setattr(model.views, "strong", lambda images: pytest.fail("the strong view of other methods"))
    losses_of(model, {**example.inputs, "unlabeled_strong": example.inputs["unlabeled"] + 9}, example.targets)
    ((images, _),) = pixels.seen(model.network)
    expected = by_hand(example.inputs["unlabeled"] + 1, example.inputs["labeled"], example.boxes)
    np.testing.assert_allclose(images[2:], expected, rtol=1e-6)
    np.testing.assert_array_equal(array(seen[0]), example.inside)


def test_labels_and_figures_are_the_teacher_s(monkeypatch):
    example = Example(18)
    model = example.model(monkeypatch)
    p = example.probabilities()
    views = pixels.views_of(model, example.inputs, example.targets)
    for found in (model.label(views[1])["mask"], model.terms(*views).pseudo["mask"]):
        np.testing.assert_array_equal(array(found.labels), p.argmax(-1))
        np.testing.assert_array_equal(array(found.kept), example.inside * (p.max(-1) >= TAU))
    predicted = array(model.infer(ops.convert_to_tensor(example.inputs["unlabeled"]))["mask"])
    np.testing.assert_allclose(predicted, p, rtol=1e-4)


def test_the_truth_is_moved_and_mixed_as_its_image_is(monkeypatch):
    model = pixels.pixelwise(
        AugSeg, pseudo_labels="truth", threshold=1.01,
        views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    monkeypatch.setattr(model.intensity, "draw", lambda count: tensors(intensities(*["identity"] * 3)))
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_unlabeled"] < 1e-6 < 5 < numbers(false.terms)["mask_unlabeled"]


def test_a_step_moves_the_student_then_the_teacher_behind_it(monkeypatch):
    example = Example(19)
    inputs, targets = example.inputs, example.targets
    model = model_with(monkeypatch, operations=1)
    model.compile(keras.optimizers.SGD(0.001))
    kernels = [pixels.kernel_of(network) for network in (model.network, model.teacher)]
    students = []
    for average in (lambda: students[0], lambda: (students[0] + students[1]) / 2):
        model.train_on_batch(inputs, targets)
        students.append(array(kernels[0].value).copy())
        np.testing.assert_allclose(array(kernels[1].value), average(), rtol=1e-5, atol=1e-7)
    assert np.abs(students[1] - students[0]).max() > 1e-4


def test_defaults():
    model = pixels.pixelwise(AugSeg)
    assert (model.threshold, model.lambda_unlabeled, model.operations) == (0.95, 1.0, 3)
    assert (tuple(model.injection_beta), tuple(model.mixing_beta), model.per_image_boxes) == ((8, 2), (4, 4), False)
    assert (model.teacher_momentum, model.teacher_statistics, model.mask_loss) == (0.999, "average", "ce")
    assert (model.tasks, model.use_teacher, model.intensity.operations) == ("segmentation", True, 3)
    given = pixels.pixelwise(AugSeg, injection_beta=[3, 4], mixing_beta=[5, 6], per_image_boxes=True, operations=2)
    assert (given.cutmix.injection_beta, given.cutmix.mixing_beta) == ((3, 4), (5, 6))
    assert given.cutmix.per_image and given.intensity.operations == 2
    assert dict(given.loss_weights) == {"mask_supervised": 1.0, "mask_unlabeled": 1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": "classification"}, "`tasks` of AugSeg can only be 'segmentation', found 'classification'"),
        ({"threshold": -0.7}, "`threshold` must be a number of at least 0, found -0.7"),
        ({"lambda_unlabeled": -1}, "`lambda_unlabeled` must be a number of at least 0, found -1"),
        ({"operations": 0}, "`operations` must be a whole number of at least 1, found 0"),
        ({"injection_beta": (0, 2)}, r"`injection_beta` must be two whole numbers from 1 on, found \(0, 2\)"),
        ({"mixing_beta": (4, 4.5)}, r"`mixing_beta` must be two whole numbers from 1 on, found \(4, 4.5\)"),
        ({"teacher_momentum": None}, r"`teacher_momentum` must be a number in \[0, 1\).*found None.*AugSeg"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugSeg(**wrong)
