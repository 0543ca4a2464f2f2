"""Mean Teacher on made outputs, against an independent NumPy reading of its equations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.models import MeanTeacher
from tests.losses import test_dice
from tests.losses.helpers import finite_difference, softmax
from tests.models import pixelwise as pixels
from tests.models.pixelwise import (
    array,
    batch,
    cross_entropies,
    losses_of,
    mean_cross_entropy,
    numbers,
    terms_of,
)

OTHER = np.array([[0.3, 1.0, -0.6], [-0.8, 0.4, 0.9], [1.1, -0.5, 0.2]])
"""What the teacher's logits are of the colours; the student's are the colours."""


def model_with(monkeypatch=None, strong=None, noise_numbers=None, **arguments):
    """A teacher with other weights than the student; strong views and noise as given."""
    model = pixels.pixelwise(MeanTeacher, **{"tasks": "segmentation", **arguments})
    for head in model.learnt_heads:
        pixels.kernel_of(model.teacher, head).assign(OTHER)
    if strong is not None:
        monkeypatch.setattr(model.views, "strong", lambda images: ops.convert_to_tensor(strong))
    if noise_numbers is not None:
        monkeypatch.setattr(model, "normal", lambda shape: ops.convert_to_tensor(noise_numbers))
    return model


def consistency(student, teacher, inside, distance="squared"):
    """L_con of logits."""
    p, q = (softmax(np.asarray(logits, "float64")) for logits in (student, teacher))
    distances = ((p - q) ** 2).sum(-1) / p.shape[-1] if distance == "squared" else (q * np.log(q / p)).sum(-1)
    return np.sum(inside * distances) / max(np.sum(inside), 1)


def supervised_mask(masks, logits):
    """Cross-entropy and foreground Dice, a half each."""
    dice = test_dice.oracle(masks, softmax(np.asarray(logits, "float64")))
    return (mean_cross_entropy(masks, logits) + dice) / 2


def both(images):
    """Logits of the student and of the teacher."""
    return images, images @ OTHER


def image_means(images):
    return np.asarray(images, "float64").mean((1, 2))


def example(seed, **changes):
    inputs, targets = batch(seed, **changes)
    return inputs, targets, pixels.area_mask(inputs["unlabeled_area"], 5)


def on_pixels(student, teacher, area):
    """L_con, and its slope by the images, of a row of probabilities of each network."""
    logits = np.log(np.concatenate([student, teacher], -1)).astype("float32")[None]
    classes = len(student[0][0])
    model = pixels.pixelwise(
        MeanTeacher, 2, 2 * classes, tasks="segmentation", num_classes=classes, noise=0.0, teacher_momentum=0.9
    )
    pixels.take_channels(model.teacher, classes)
    views = pixels.view_of(logits), pixels.view_of(logits, pixels.area_mask([area], 2))
    found = numbers(model.terms(*views).terms)["mask_consistency"]
    return found, pixels.slope_by_images(model, views, "mask_consistency").copy()


def test_the_numbers_of_the_specification():
    p, q = [[(0.9, 0.1)] * 2] * 2, [[(0.6, 0.4)] * 2] * 2
    found, slope = on_pixels(p, q, (0, 0, 1, 1))
    np.testing.assert_allclose(found, 0.09, rtol=1e-5)
    np.testing.assert_allclose(slope[0, 0, 0], (0.054, -0.054, 0, 0), atol=1e-6)
    slope[0, 0, 0] = 0
    assert not slope.any()
    three = [[(0.7, 0.2, 0.1)] * 2] * 2, [[(0.5, 0.3, 0.2)] * 2] * 2
    np.testing.assert_allclose(on_pixels(*three, (0, 0, 2, 2))[0], 0.02, rtol=1e-5)
    second = [[(0.9, 0.1), (0.6, 0.4)]] * 2, [[(0.6, 0.4), (0.5, 0.5)]] * 2  # 0.09 and 0.01
    for area, expected in (((0, 0, 1, 1), 0.09), ((0, 0, 1, 2), 0.05), ((1, 1, 1, 1), 0.0)):
        found, slope = on_pixels(*second, area)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
        assert slope.any() == (expected > 0)


@pytest.mark.parametrize("distance", ["squared", "kl"])
@pytest.mark.parametrize("student_view", ["weak", "strong"])
def test_loss_of_masks(monkeypatch, student_view, distance):
    inputs, targets, inside = example(0)
    strong = batch(50)[0]["unlabeled"]
    noise = np.random.default_rng(1).normal(0, 2, strong.shape).astype("float32")
    given = {"noise": 0.01, "student_view": student_view, "distance": distance, "lambda_consistency": 3.0}
    model = model_with(monkeypatch, strong, noise, **given)
    student = both(inputs["unlabeled"] if student_view == "weak" else strong)[0]
    teacher = both(inputs["unlabeled"] + 2.55 * np.clip(noise, -2, 2))[1]
    known = supervised_mask(targets["mask"], both(inputs["labeled"])[0])
    hidden = consistency(student, teacher, inside, distance)
    assert hidden > 0.01
    found = terms_of(model, inputs, targets)
    assert list(found) == ["mask_supervised", "mask_consistency"]
    np.testing.assert_allclose(list(found.values()), [known, hidden], rtol=1e-4)
    model.step.assign(5)
    total = pixels.total_of(model, inputs, targets)
    np.testing.assert_allclose(total, known + 3 * np.exp(-1.25) * hidden, rtol=1e-4)


def test_loss_of_both_tasks_and_of_image_classes_alone(monkeypatch):
    inputs, targets, inside = example(1)
    means = both(image_means(inputs["unlabeled"]))
    terms = {
        "mask_supervised": supervised_mask(targets["mask"], both(inputs["labeled"])[0]),
        "mask_consistency": consistency(*both(inputs["unlabeled"]), inside),
        "label_supervised": mean_cross_entropy(targets["label"], both(image_means(inputs["labeled"]))[0]),
        "label_consistency": consistency(*means, np.ones(3)),
    }
    ramp = 0.1 * np.exp(-5 * 0.7**2)
    for tasks, factors in ((None, (0.25, 3.0)), ("classification", (0.0, 1.0))):
        model = model_with(tasks=tasks, noise=0.0, lambda_seg=0.25, lambda_cls=3.0)
        found = terms_of(model, inputs, targets)
        assert found.keys() == {name for name in terms if tasks is None or name.startswith("label")}
        for name, value in found.items():
            np.testing.assert_allclose(value, terms[name], rtol=1e-4, err_msg=name)
        model.step.assign(3)
        total = sum(
            factor * (terms[f"{head}_supervised"] + ramp * terms[f"{head}_consistency"])
            for head, factor in zip(("mask", "label"), factors, strict=True)
        )
        np.testing.assert_allclose(pixels.total_of(model, inputs, targets), total, rtol=1e-4)


def test_weight_of_the_consistency():
    model = model_with()
    for step, expected in ((0, 0.00067379), (5, 0.0286505), (10, 0.1), (20, 0.1)):
        model.step.assign(step)
        weights = numbers({name: ops.convert_to_tensor(value) for name, value in model.loss_weights.items()})
        assert weights.keys() == {"mask_supervised", "mask_consistency"}
        np.testing.assert_allclose(list(weights.values()), [1, expected], rtol=1e-5)


@pytest.mark.parametrize("distance", ["squared", "kl"])
@pytest.mark.parametrize("head", ["mask", "label"])
def test_slopes_reach_the_student_alone(head, distance):
    inputs, targets, inside = example(2)
    model = model_with(tasks=None, noise=0.0, distance=distance)
    views = pixels.views_of(model, inputs, targets)
    student, teacher = (inputs["unlabeled"].astype("float64"), both(inputs["unlabeled"])[1])
    if head == "label":
        student, teacher, inside = image_means(student), image_means(teacher), np.ones(3)
    for name, term in {
        "supervised": lambda kernel: (
            mean_cross_entropy(targets["label"], image_means(inputs["labeled"]) @ kernel)
            if head == "label"
            else supervised_mask(targets["mask"], inputs["labeled"] @ kernel)
        ),
        "consistency": lambda kernel: consistency(student @ kernel, teacher, inside, distance),
    }.items():
        function = lambda name=name: model.terms(*views).terms[f"{head}_{name}"]  # noqa: E731
        found = pixels.slope(pixels.kernel_of(model.network, head), function)
        expected = finite_difference(term, np.eye(3))
        assert np.abs(expected).max() > 0.002
        np.testing.assert_allclose(found, expected, atol=5e-6, err_msg=name)
        assert not pixels.slope(pixels.kernel_of(model.teacher, head), function).any()
    by_images = pixels.slope_by_images(model, views, f"{head}_consistency")
    reading = lambda images: consistency(image_means(images) if head == "label" else images, teacher, inside, distance)  # noqa: E731
    np.testing.assert_allclose(by_images, finite_difference(reading, inputs["unlabeled"]), atol=2e-6)


@pytest.mark.parametrize(("momentum", "expected"), [(0.99, (1, 1.5, 2, 2.5)), (0.5, (1, 1.5, 2.25, 3.125))])
def test_the_teacher_after_each_step(momentum, expected):
    model = pixels.pixelwise(MeanTeacher, teacher_momentum=momentum, tasks=None)
    for variable in model.teacher.variables:
        variable.assign(ops.full_like(variable.value, 7.0))
    for step, (value, average) in enumerate(zip((1.0, 2.0, 3.0, 4.0), expected, strict=True), start=1):
        for variable in model.network.variables:
            variable.assign(ops.full_like(variable.value, value))
        model.after_step()
        assert len(model.teacher.variables) == 3
        for variable in model.teacher.variables:
            np.testing.assert_allclose(array(variable.value), average, rtol=1e-6)
        for variable in model.network.variables:
            np.testing.assert_array_equal(array(variable.value), value)
        assert int(array(model.step.value)) == step


def test_the_teacher_starts_as_the_student_and_trains_by_averaging_alone():
    model = pixels.pixelwise(MeanTeacher)
    for ours, theirs in zip(model.teacher.variables, model.network.variables, strict=True):
        np.testing.assert_array_equal(array(ours.value), array(theirs.value))
    assert not model.teacher.trainable_variables and model.network.trainable_variables


@pytest.mark.parametrize("statistics", ["average", "own"])
def test_the_teacher_alone_sees_noise(monkeypatch, statistics):
    inputs, targets, _ = example(3)
    noise = np.resize(np.array([-3, 0.5, 1, 4], "float32"), inputs["unlabeled"].shape)
    model = model_with(monkeypatch, noise_numbers=noise, teacher_statistics=statistics)
    losses_of(model, inputs, targets)
    ((student, training),) = pixels.seen(model.network)
    assert training is True
    np.testing.assert_allclose(student, np.concatenate([inputs["labeled"], inputs["unlabeled"]]), rtol=1e-6)
    ((teacher, training),) = pixels.seen(model.teacher)
    assert training is (statistics == "own")
    levels = np.resize(np.array([-51, 12.75, 25.5, 51], "float32"), noise.shape)
    np.testing.assert_allclose(teacher - inputs["unlabeled"], levels, atol=1e-4)


def test_noise_is_drawn_anew_and_normal():
    inputs, targets, _ = example(4)
    model = model_with(noise=0.2)
    steps = []
    for _ in range(2):
        losses_of(model, inputs, targets)
        ((images, _),) = pixels.seen(model.teacher)
        steps.append(images - inputs["unlabeled"])
    assert np.abs(steps[0] - steps[1]).mean() > 10
    for noise in steps:
        np.testing.assert_allclose(np.abs(noise).max(), 2 * 51, rtol=1e-4)
        # A standard normal number, clipped at two, has a deviation of 0.9594.
        np.testing.assert_allclose([noise.mean(), noise.std()], [0, 51 * 0.9594], atol=12)


def test_the_student_may_see_the_strong_view(monkeypatch):
    inputs, targets, _ = example(5)
    model = model_with(student_view="strong", noise=0.0)
    monkeypatch.setattr(model.views, "strong", lambda images: 255 - images)
    losses_of(model, inputs, targets)
    ((student, _),), ((teacher, _),) = pixels.seen(model.network), pixels.seen(model.teacher)
    np.testing.assert_allclose(student[2:], 255 - inputs["unlabeled"], rtol=1e-6)
    np.testing.assert_allclose(teacher, inputs["unlabeled"], rtol=1e-6)


def test_labels_and_predictions_are_the_teacher_s():
    inputs, targets, inside = example(6)
    model = model_with()
    q = softmax(both(inputs["unlabeled"])[1].astype("float64"))
    found = model.label(pixels.views_of(model, inputs, targets)[1])["mask"]
    np.testing.assert_array_equal(array(found.labels), q.argmax(-1))
    np.testing.assert_allclose(array(found.probabilities), q, rtol=1e-5)
    np.testing.assert_array_equal(array(found.kept), inside)
    np.testing.assert_allclose(array(model.infer(ops.convert_to_tensor(inputs["unlabeled"]))["mask"]), q, rtol=1e-5)
    assert not model.selects


def test_nothing_counts():
    inputs, targets, _ = example(7)
    inputs["unlabeled_area"] = np.ones_like(inputs["unlabeled_area"])
    targets = {"mask": np.full_like(targets["mask"], 255), "label": np.full_like(targets["label"], 255)}
    model = model_with(tasks=None)
    assert set(terms_of(model, inputs, targets).values()) == {0.0}
    assert pixels.total_of(model, inputs, targets) == 0


def test_the_truth_in_the_place_of_the_teacher():
    model = pixels.pixelwise(
        MeanTeacher, tasks="segmentation", pseudo_labels="truth", noise=0.0,
        views={"vertical_flip": True, "scale": (1.0, 1.0), "shift": 0.0},
    )  # fmt: skip
    kernel = pixels.kernel_of(model.teacher)
    kernel.assign(-kernel.value)
    true, false = pixels.oracle_losses(model)
    assert numbers(true.terms)["mask_consistency"] < 1e-6 < 0.2 < numbers(false.terms)["mask_consistency"]


def test_the_truth_of_some_pixels_and_images_is_unknown():
    inputs, targets, inside = example(8)
    model = model_with(tasks=None, pseudo_labels="truth", distance="kl")
    rng = np.random.default_rng(0)
    targets["unlabeled_mask"] = np.where(rng.uniform(size=inside.shape) < 0.3, 255, rng.integers(0, 3, inside.shape))
    targets["unlabeled_label"] = np.array([1, 255, 2])
    known = (targets["unlabeled_mask"] != 255) * inside
    losses = cross_entropies(targets["unlabeled_mask"], both(inputs["unlabeled"])[0])  # KL from a one-hot truth
    found = terms_of(model, inputs, targets)
    np.testing.assert_allclose(found["mask_consistency"], np.sum(known * losses) / known.sum(), rtol=1e-4)
    expected = mean_cross_entropy(targets["unlabeled_label"], both(image_means(inputs["unlabeled"]))[0])
    np.testing.assert_allclose(found["label_consistency"], expected, rtol=1e-4)


def test_a_step_moves_the_student_then_the_teacher_behind_it():
    inputs, targets, _ = example(9)
    model = model_with()
    model.compile(keras.optimizers.SGD(0.1))
    inputs = {**inputs, **{half: np.clip(128 + inputs[half], 0, 255) for half in ("labeled", "unlabeled")}}
    before = array(pixels.kernel_of(model.network).value).copy()
    model.train_on_batch(inputs, targets)
    student, teacher = (array(pixels.kernel_of(each).value) for each in (model.network, model.teacher))
    assert np.abs(student - before).max() > 1e-3
    np.testing.assert_allclose(teacher, student, rtol=1e-6)  # the first update is a copy
    model.train_on_batch(inputs, targets)
    after = array(pixels.kernel_of(model.network).value)
    np.testing.assert_allclose(array(pixels.kernel_of(model.teacher).value), (student + after) / 2, rtol=1e-5)


def test_defaults():
    model = pixels.pixelwise(MeanTeacher)
    assert (model.lambda_consistency, model.noise, model.student_view, model.distance) == (0.1, 0.1, "weak", "squared")
    assert (model.lambda_seg, model.lambda_cls, model.teacher_momentum) == (0.5, 1.0, 0.99)
    assert (model.mask_loss, model.teacher_statistics, model.use_teacher) == ("ce_dice", "average", True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"student_view": "strongg"}, "`student_view` must be .* found 'strongg'. Did you mean 'strong'"),
        ({"distance": "l2"}, "`distance` must be one of 'squared', 'kl', found 'l2'"),
        ({"noise": -0.1}, "`noise` must be a number of at least 0, found -0.1"),
        ({"lambda_consistency": -1}, "`lambda_consistency` must be a number of at least 0, found -1"),
        ({"teacher_momentum": None}, r"`teacher_momentum` must be a number in \[0, 1\).*found None.*MeanTeacher"),
        ({"teacher_momentum": 1.0}, r"`teacher_momentum` must be in \[0, 1\).*found 1.0"),
    ],
)
def test_errors_name_argument_and_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        MeanTeacher(**wrong)
