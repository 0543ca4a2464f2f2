from __future__ import annotations

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.data.arrays import EvaluationBatches
from keras_semimed.models import LoCo, View
from keras_semimed.models.loco import PRESETS
from keras_semimed.models.view import Source
from tests.losses import low_contrast_oracle as oracle
from tests.models.common import (
    SIZE,
    assert_finite,
    batches,
    fitted,
    image_set,
    made,
    outputs_given,
    weights_of,
)
from tests.models.common import arguments as common_arguments
from tests.models.methods import JAX, traced_step


def arguments(**changes) -> dict:
    return common_arguments(**{"network": "deeplab", **changes})


def test_loss_is_equation_10():
    _, history = fitted(LoCo, data=batches(steps=1), lambda_unlabeled=0.7, lambda_contrast=0.3, loss_scale=0.5)
    h = {name: values[0] for name, values in history.items()}
    total = h["mask_supervised"] + 0.7 * h["mask_unlabeled"] + 0.3 * h["low_contrast"]
    np.testing.assert_allclose(h["loss"], 0.5 * total, rtol=1e-5)
    assert h["mask_supervised"] > 0 and h["low_contrast"] > 0


def made_outputs(seed: int = 0) -> tuple[View, View, dict, dict, dict]:
    """Views, and random numbers in the place of what the student makes of them and of the teacher's logits."""
    random = np.random.default_rng(seed)
    masks = random.integers(0, 3, (2, SIZE, SIZE)).astype("int32")
    masks[0, :5] = 255
    inside = np.ones((3, SIZE, SIZE), "float32")
    inside[1, :, :7] = 0
    outside = {
        "masks": ops.convert_to_tensor(masks),
        "inside": ops.convert_to_tensor((masks != 255).astype("float32")),
    }
    labeled = View(ops.zeros((2, SIZE, SIZE, 3)), **outside, source=Source(ops.zeros((2, SIZE, SIZE, 3))))
    unlabeled = View(
        ops.zeros((3, SIZE, SIZE, 3)), ops.convert_to_tensor(inside), source=Source(ops.zeros((3, SIZE, SIZE, 3)))
    )
    on_labeled, on_strong = (
        {"mask_logits": random.normal(size=(count, SIZE, SIZE, 3)).astype("float32")} for count in (2, 3)
    )
    teacher = random.dirichlet((0.4, 0.3, 0.2), (3, SIZE, SIZE)).astype("float32")
    return labeled, unlabeled, on_labeled, on_strong, {"mask_logits": np.log(np.maximum(teacher, 1e-7))}


def cross_entropies(logits, labels):
    logits = ops.convert_to_numpy(logits).astype("float64")
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, np.minimum(labels, 2)[..., None].astype(int), -1)[..., 0]


@pytest.mark.parametrize("cutmix_from", ["unlabeled", "labeled"])
def test_terms_are_equations_2_and_6_after_cutmix(cutmix_from):
    model = LoCo(**arguments(num_classes=3, inter_class=False, boundary=False, cutmix_from=cutmix_from))
    boxes = np.zeros((3, SIZE, SIZE), "float32")
    boxes[0, 4:20, 8:30] = 1
    boxes[2, 10:12, :] = 1
    labeled, unlabeled, on_labeled, on_strong, taught = made_outputs()
    with (
        mock.patch.object(model, "strong", lambda view: view),
        mock.patch.object(model.cutmix, "boxes", lambda *size: ops.convert_to_tensor(boxes)),
        outputs_given(model, on_labeled, on_strong, taught=taught),
    ):
        terms, pseudo, figures, _ = model.terms(labeled, unlabeled)

    truth = ops.convert_to_numpy(labeled.masks)
    known = truth != 255
    expected = cross_entropies(on_labeled["mask_logits"], truth)[known].mean()
    np.testing.assert_allclose(float(terms["mask_supervised"]), expected, rtol=1e-5)

    exponentials = np.exp(taught["mask_logits"])
    teacher, inside = exponentials / exponentials.sum(-1, keepdims=True), ops.convert_to_numpy(unlabeled.inside)
    labels, confidence = teacher.argmax(-1), teacher.max(-1)
    kept = (confidence >= ops.convert_to_numpy(model.filter.thresholds())[labels]) * inside
    target, weight, valid = labels.copy(), kept.copy(), inside.copy()
    for n, y, x in zip(*np.nonzero(boxes), strict=True):
        if cutmix_from == "unlabeled":
            source = n - 1
            target[n, y, x], weight[n, y, x], valid[n, y, x] = (a[source, y, x] for a in (labels, kept, inside))
        else:
            source = n % 2
            target[n, y, x] = truth[source, y, x]
            weight[n, y, x] = valid[n, y, x] = known[source, y, x]
    expected = (cross_entropies(on_strong["mask_logits"], target) * weight).sum() / valid.sum()
    np.testing.assert_allclose(float(terms["mask_unlabeled"]), expected, rtol=1e-5)
    assert float(terms["low_contrast"]) == 0
    shares = model._shares(pseudo)
    np.testing.assert_allclose(float(shares["mask_selected"].value), kept.sum() / inside.sum(), rtol=1e-5)
    minority = inside * (labels == 2)
    np.testing.assert_allclose(
        float(shares["mask_selected_class_2"].value), (kept * minority).sum() / minority.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
        float(figures["fixed_selected_class_2"].value),
        ((confidence >= 0.95) * minority).sum() / minority.sum(),
        rtol=1e-5,
    )


def test_contrast_is_of_the_pixels_that_the_filter_keeps():
    """Eq. 7-13 of the labelled masks and of the teacher's labels that pass Eq. 18, in loops over all pixels."""
    model = LoCo(**arguments(num_classes=3))
    labeled, unlabeled, on_labeled, on_strong, taught = made_outputs(1)
    random = np.random.default_rng(2)
    small = SIZE // 8
    projections = [random.normal(size=(count, small, small, 6)).astype("float32") for count in (2, 3)]
    outputs = (on_labeled | {"projection": projections[0]}, on_strong, {"projection": projections[1]})
    with (
        mock.patch.object(model, "strong", lambda view: view),
        mock.patch.object(model.cutmix, "boxes", lambda *size: ops.zeros((3, SIZE, SIZE))),
        outputs_given(model, *outputs, taught=taught),
    ):
        terms, pseudo, _, _ = model.terms(labeled, unlabeled)

    labels, kept, inside = (
        ops.convert_to_numpy(getattr(pseudo["mask"], name)) for name in ("labels", "kept", "inside")
    )
    assert 0 < kept.sum() < inside.sum()
    expected = []
    for counted in (kept, inside):
        made = (projections[0], ops.convert_to_numpy(labeled.masks), projections[1], labels, counted)
        chosen = oracle.select(made, 3, model.contrast_loss.k, model.contrast_loss.neighbours)
        expected.append(oracle.loss(made, chosen.inter_class | chosen.boundary, 3, model.contrast_loss.temperature))
    np.testing.assert_allclose(ops.convert_to_numpy(terms["low_contrast"]), expected[0], rtol=1e-4)
    assert abs(expected[1] - expected[0]) > 1e-3 * expected[0]  # what is not kept would be seen


def test_teacher_is_the_average_of_the_updated_student_to_1e_6_after_50_steps():
    model = LoCo(**arguments(teacher_momentum=0.9, total_steps=50))
    model.compile()
    students = []

    class Recorded(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            students.append(weights_of(self.model.network))

    if keras.backend.backend() == "jax":  # there the weights are handed back at the end of an epoch
        for step in range(50):
            data = batches(steps=1)
            data.epoch = step
            model.fit(data, verbose=0)
            students.append(weights_of(model.network))
    else:
        model.fit(batches(steps=50), verbose=0, callbacks=[Recorded()])
    average = [np.zeros_like(a, dtype="float64") for a in students[0]]
    for step, student in enumerate(students):
        momentum = min(1 - 1 / (step + 1), 0.9)
        average = [momentum * a + (1 - momentum) * b for a, b in zip(average, student, strict=True)]
    for variable, expected in zip(model.teacher.variables, average, strict=True):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(ops.convert_to_numpy(variable.value) / scale, expected / scale, atol=1e-6)


def test_a_teacher_with_own_statistics_takes_them_from_what_it_labels():
    model = LoCo(**arguments(teacher_statistics="own", teacher_momentum=0.5))
    model.compile()
    before = weights_of(model.teacher)
    model.fit(batches(steps=1), verbose=0)
    after, student = weights_of(model.teacher), weights_of(model.network)
    assert not any(variable.trainable for variable in model.teacher.variables)
    assert len(model.trainable_variables) == len(model.network.trainable_variables)
    moved = 0
    for variable, old, new, learnt in zip(model.network.variables, before, after, student, strict=True):
        if variable.trainable:
            np.testing.assert_allclose(new, learnt, atol=1e-6)  # the first step's average
        else:
            moved += np.abs(new - old).max() > 0 and np.abs(new - learnt).max() > 0
    assert moved > 10


def test_learns_squares_and_predicts_with_the_teacher():
    views = {"scale": (1.0, 1.0), "shift": 0.0}
    keras.utils.set_random_seed(1)
    model = LoCo(**arguments(total_steps=80, teacher_momentum=0.8, views=views))
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(batches(steps=80, batch_size=6), verbose=0)
    test = EvaluationBatches(image_set(8, 9), 8)
    teacher = model.evaluate(test, verbose=0, return_dict=True)
    model.use_teacher = False
    student = model.evaluate(test, verbose=0, return_dict=True)
    assert teacher["dice"] > 0.6 and student["dice"] > 0.6 and teacher["dice"] != student["dice"]
    assert set(teacher) == {"loss", "dice"}


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "release", "num_classes": 3},
        {"inter_class": False, "boundary": False, "dynamic_filter": False},
        {"inter_class": False, "boundary": False, "use_unlabeled": False},
        {"boundary": False, "dynamic_filter": False, "num_classes": 3},
        {"inter_class": False, "neighbours": 8},
        {"network": "unet"},
    ],
    ids=["release", "M2", "M1", "M5", "M4", "unet"],
)
def test_every_switch_trains(changes):
    data = batches(steps=2, classes=changes.get("num_classes", 2))
    if JAX:  # compiling each takes longer than all else here
        traced_step(made(LoCo, **changes), *data[0])
        return
    model, history = fitted(LoCo, data=data, **changes)
    assert_finite(model, history)
    prediction = model.predict(image_set(2, 4).images, verbose=0)["mask"]
    assert prediction.shape == (2, SIZE, SIZE, model.num_classes) and prediction.dtype == np.float32


def test_a_size_that_is_no_multiple_of_32():
    model = LoCo(**arguments(image_size=33, encoder="resnet_tiny", output_stride=16))
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 51, 3)).astype("uint8")
    x, y = {"labeled": images, "unlabeled": images}, {"mask": np.zeros(images.shape[:3], "int32")}
    labeled, unlabeled = model.training_views(x, y)
    assert labeled.images.shape == (2, 33, 33, 3) and labeled.masks.shape == (2, 33, 33)
    assert model.run(labeled, unlabeled)[1]["mask_logits"].shape == (2, 33, 33, 2)
    assert np.isfinite(float(ops.convert_to_numpy(model.compute_loss(x, y, {}))))
    assert model.predict(images, verbose=0)["mask"].shape == (2, 40, 51, 2)


def test_presets_are_what_they_say_and_survive_a_round_trip(tmp_path):
    model = LoCo(**arguments(preset="release", neighbours=8))
    model.save(tmp_path / "model.keras")
    config = keras.saving.load_model(tmp_path / "model.keras").get_config()
    assert {name: config[name] for name in PRESETS["release"]} == PRESETS["release"] and config["neighbours"] == 8
    paper = LoCo(**arguments())
    assert paper.loss_weights == {"mask_supervised": 1.0, "mask_unlabeled": 0.5, "low_contrast": 0.1}
    assert (paper.filter.initial, paper.filter.gamma, paper.filter.momentum) == (0.85, 0.25, 0.999)
    assert (paper.contrast_loss.k, paper.contrast_loss.neighbours, paper.contrast_loss.temperature) == (0.3, 64, 0.1)
    assert paper.views.scale == (0.5, 2.0) and paper.views.grey_probability == 0.2


def test_encoder_learns_at_a_tenth_of_the_rate():
    model = LoCo(**arguments())
    model.compile()
    encoder, head = sorted(model.optimizer.optimizers, key=lambda optimizer: optimizer.name)
    assert float(head.learning_rate) == pytest.approx(10 * float(encoder.learning_rate)) == pytest.approx(1e-2)
    encoder_count = len(model.encoder.trainable_variables)
    assert len(encoder._trainable_variables) == encoder_count
    assert len(head._trainable_variables) == len(model.trainable_variables) - encoder_count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size"),
        ({"preset": "published"}, "preset"),
        ({"num_classes": 1}, "num_classes"),
        ({"lambda_contrast": -0.1}, "lambda_contrast"),
        ({"fixed_threshold": 2.0}, "`fixed_threshold` must be within"),
        ({"threshold_start": -0.1}, "threshold_start"),
        ({"cutmix_probability": 1.1}, "cutmix_probability"),
        ({"decoder_filters": 0}, "decoder_filters"),
        ({"output_stride": 4, "encoder": "resnet_tiny"}, "output_stride"),
        ({"cutmix_from": "teacher"}, "cutmix_from"),
        ({"teacher_statistics": "none"}, "teacher_statistics"),
        ({"teacher_momentum": None}, "teacher_momentum"),
        ({"inter_class_share": 0.0}, "`inter_class_share` must be above 0"),
    ],
)
def test_errors_name_the_argument(changes, message):
    with pytest.raises(ValueError, match=message):
        LoCo(**arguments(**changes))


def test_a_view_larger_than_the_images_is_refused():
    model = LoCo(**arguments(image_size=2 * SIZE))
    model.compile()
    with pytest.raises(ValueError, match="image_size=64 is larger than the labeled images"):
        model.fit(batches(), verbose=0)
