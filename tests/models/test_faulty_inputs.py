"""Images and targets that a model used to take without a word, and what it predicted or scored was wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
from keras import ops

from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, from_arrays
from keras_semimed.models import AugSeg, FixMatch, Supervised
from keras_semimed.models.value_checks import check_predictions
from tests.models.common import arguments, batches, image_set
from tests.models.test_faults import BATCH, IMAGES, TARGETS, Pairs, segmenter


@pytest.fixture(scope="module")
def model() -> Supervised:
    """A compiled model for both tasks; nobody trains it."""
    made = Supervised(**arguments())
    made.compile()
    return made


@pytest.mark.parametrize(
    "call",
    [
        lambda m, y: m.evaluate(IMAGES.images, y, verbose=0),
        lambda m, y: m.test_on_batch(IMAGES.images, y),
        lambda m, y: m.train_on_batch(BATCH[0], y),
        lambda m, y: m.fit(Pairs(BATCH[0], y), verbose=0),
    ],
    ids=["evaluate", "test_on_batch", "train_on_batch", "fit"],
)
@pytest.mark.parametrize(
    "targets, message",
    [
        ({"masks": IMAGES.masks}, r"keys \['masks'\]; expected 'mask' and 'label'"),
        ({**TARGETS, "lable": IMAGES.labels}, r"keys \['label', 'lable', 'mask'\]"),
        ({}, r"keys \[\]; expected 'mask' and 'label'"),
        ({"label": np.eye(2, dtype="float32")[IMAGES.labels]}, r"'label' must be \(N,\) class indices, not one-hot"),
        ({"mask": np.eye(2, dtype="float32")[IMAGES.masks]}, r"'mask' must be \(N, H, W\) class indices, not one-hot"),
    ],
)
def test_targets_under_another_name_or_shape_are_no_perfect_score(model, call, targets, message):
    with pytest.raises(ValueError, match=message):
        call(model, targets)


def test_targets_that_are_no_classes_are_not_left_out_in_silence(model):
    for targets, message in (
        ({"label": np.array([0, 1, 2, 1])}, "class 2, the model has the classes 0 to 1"),
        ({"mask": np.full_like(IMAGES.masks, 3)}, r"'mask\[0\]' holds \[3\]"),
        ({"mask": IMAGES.masks / 2}, "values that are not classes"),
        ({"mask": IMAGES.masks[:, :-1]}, r"'mask' is \(4, 31, 32\), the images are \(4, 32, 32, 3\)"),
        ({"label": IMAGES.labels[:3]}, r"'label' is \(3,\), the images are \(4, 32, 32, 3\)"),
        ({"masks": IMAGES.masks}, r"keys \['masks'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model.evaluate(IMAGES.images, targets, verbose=0)
        with pytest.raises(ValueError, match=message):
            model.fit(batches(), validation_data=(IMAGES.images, targets), verbose=0)
    with pytest.raises(ValueError, match="3 mask classes"):
        model.evaluate(EvaluationBatches(image_set(3, classes=3)), verbose=0)


SMALL = (IMAGES.images / 255).astype("float32")


def images_in_tensors(model: Supervised) -> None:
    tf = pytest.importorskip("tensorflow")
    model.predict(tf.data.Dataset.from_tensor_slices(SMALL).batch(2), verbose=0)


def images_in_a_loader(model: Supervised) -> None:
    torch = pytest.importorskip("torch")
    model.predict(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(SMALL))), verbose=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(SMALL, verbose=0),
        lambda m: m.predict(ops.convert_to_tensor(SMALL), verbose=0),
        lambda m: m.predict(Pairs(SMALL), verbose=0),
        lambda m: m.predict((each for each in [(SMALL,)]), verbose=0),
        images_in_tensors,
        images_in_a_loader,
        lambda m: m.predict_on_batch(SMALL),
        lambda m: m.evaluate(SMALL, TARGETS, verbose=0),
        lambda m: m.test_on_batch(SMALL, TARGETS),
        lambda m: m.train_on_batch({"labeled": SMALL, "unlabeled": SMALL}, TARGETS),
        lambda m: m.fit({"labeled": IMAGES.images, "unlabeled": SMALL}, TARGETS, verbose=0),
        lambda m: m.fit(batches(), validation_data=(SMALL, TARGETS), verbose=0),
        lambda m: m.fit(batches(), validation_data=Pairs(SMALL, TARGETS), verbose=0),
        lambda m: m.explain(SMALL),
        lambda m: m.predict(np.concatenate([IMAGES.images, SMALL]), verbose=0),
    ],
)
def test_images_in_0_to_1_are_refused_wherever_they_enter(model, call):
    with pytest.raises(ValueError, match=r"\[[04]\] holds values in 0..1; expected 0..255: multiply by 255"):
        call(model)


def test_a_prediction_is_finite_or_an_error():
    model = segmenter()
    images = IMAGES.images.astype("float32")
    expected = model.predict(IMAGES.images, verbose=0)["mask"]
    np.testing.assert_allclose(
        model.predict(((each[None],) for each in images), verbose=0)["mask"], expected, atol=1e-6
    )
    images[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"'images\[2\]' holds NaN"):
        model.predict(images, verbose=0)
    with pytest.raises(ValueError, match=r"images\[0\] holds values in -1\.\S+; expected 0..255"):
        model.predict(IMAGES.images / 127.5 - 1 - 0.004, verbose=0)
    outputs = {"label": np.ones((4, 2)), "mask": np.where(np.arange(4)[:, None, None, None] > 1, np.nan, expected)}
    with pytest.raises(ValueError, match=r"'mask' of images\[2\] is not finite, nor are those of 2 of 4 images"):
        check_predictions(outputs)
    kernel = model.network.trainable_variables[0]
    kernel.assign(ops.convert_to_numpy(kernel.value) * np.nan)
    with pytest.raises(ValueError, match="the weights of the model are not finite.*diverged"):
        model.predict(IMAGES.images, verbose=0)


@pytest.mark.parametrize(
    "images, message",
    [
        (IMAGES.images[0], r"found \(32, 32, 3\); one image is `images\[None\]`"),
        (IMAGES.images[..., 0], r"found \(4, 32, 32\); grey images are `images\[..., None\]`"),
        (np.moveaxis(IMAGES.images, -1, 1), r"found \(4, 3, 32, 32\); channels come last"),
        (np.zeros((4, 32, 32, 4), "uint8"), r"found \(4, 32, 32, 4\)"),
        (np.zeros((32, 32), "uint8"), r"found \(32, 32\)"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.predict(x, verbose=0),
        lambda m, x: m.predict_on_batch(x),
        lambda m, x: m.evaluate(x, TARGETS, verbose=0),
        lambda m, x: m.test_on_batch(x, TARGETS),
        lambda m, x: m.fit(batches(), validation_data=(x, TARGETS), verbose=0),
        lambda m, x: m(x),
        lambda m, x: m.embed(x),
        lambda m, x: m.explain(x),
        lambda m, x: m.train_on_batch({"labeled": x, "unlabeled": x}, TARGETS),
    ],
    ids=["predict", "predict_on_batch", "evaluate", "test_on_batch", "validation", "call", "embed", "explain", "train"],
)
def test_images_of_a_wrong_shape_are_named(model, call, images, message):
    message = message.replace("images`", ".*`").replace("`images", "`.*")
    with pytest.raises(ValueError, match=rf"must be \(N, H, W, 1 or 3\), {message}"):
        call(model, images)


def test_a_model_that_is_not_compiled_is_named():
    with pytest.raises(ValueError, match=r"call `compile\(\)` before `fit`"):
        Supervised(**arguments()).fit(batches(), verbose=0)


def test_inputs_under_another_name_are_named(model):
    x, y = BATCH
    with pytest.raises(ValueError, match=r"keys \['labeled', 'unlabelled'\]; expected 'labeled', 'unlabeled'"):
        model.train_on_batch({"labeled": x["labeled"], "unlabelled": x["unlabeled"]}, y)


def test_lesions_that_are_written_as_255_are_read_or_refused(model, capsys):
    with pytest.raises(ValueError, match="0 and 255 alone, and 255 is what is ignored; give the lesion the value 1"):
        model.evaluate(IMAGES.images, {"mask": IMAGES.masks * 255}, verbose=0)
    with pytest.raises(ValueError, match="0 and 255 alone"):
        model.fit(batches(), validation_data=(IMAGES.images, {"mask": IMAGES.masks * 255}), verbose=0)
    written = ImageSet(IMAGES.names, IMAGES.images, IMAGES.masks * 255)
    with pytest.raises(ValueError, match="0 and 255 alone"):
        model.fit(SemiSupervisedBatches(written, IMAGES, 2), verbose=0)
    with pytest.raises(ValueError, match="0 and 255 alone"):
        model.fit(batches(), validation_data=EvaluationBatches(written), verbose=0)
    data = from_arrays(IMAGES.images, IMAGES.masks * 255)
    np.testing.assert_array_equal(data.labeled.masks, IMAGES.masks)
    assert "0 and 255 alone, read as background and lesion" in capsys.readouterr().out


def test_masks_without_any_lesion_are_refused_for_training_only(model):
    padded = np.zeros_like(IMAGES.masks)
    padded[:, :5] = padded[:, :, -3:] = 255  # as letterboxing leaves it
    with pytest.raises(ValueError, match="no pixel of the 4 masks"):
        from_arrays(IMAGES.images, padded)
    empty = ImageSet(IMAGES.names, IMAGES.images, padded)
    with pytest.raises(ValueError, match="no pixel of the 4 masks"):
        model.fit(SemiSupervisedBatches(empty, IMAGES, 2), verbose=0)
    padded[0, 10:12, 10:12] = 1
    assert from_arrays(IMAGES.images, padded).labeled.masks.max() == 255
    model_of_masks = segmenter()
    model_of_masks.compile()
    assert np.isfinite(model_of_masks.test_on_batch(IMAGES.images[1:], {"mask": padded[1:]})).all()


def test_arrays_to_learn_from_are_looked_at_as_a_data_set_is(model):
    lesion = (BATCH[1]["mask"] > 0).astype("uint8")
    for targets, message in (
        ({"mask": lesion * 255}, "255"),
        ({"mask": lesion * 0}, "lesion"),
        ({"mask": lesion * 7}, "holds"),
        ({"label": BATCH[1]["label"] + 5}, "the model has the classes 0 to 1"),
        ({"label": BATCH[1]["label"] - 1.5}, "whole numbers"),
    ):
        given = {**BATCH[1], **targets}
        with pytest.raises(ValueError, match=message):
            model.fit(dict(BATCH[0]), given, verbose=0)
        if message not in ("255", "lesion"):  # a batch alone may be all ignored, or without a lesion
            with pytest.raises(ValueError, match=message):
                model.train_on_batch(dict(BATCH[0]), given)


def test_everything_in_a_batch_must_belong_to_its_images(model):
    x, y = BATCH
    count, size = x["labeled"].shape[:2]
    area = np.tile(np.array([0, 0, size, size], "int32"), (len(x["unlabeled"]) + 1, 1))
    for inputs, targets, message in (
        (x, {**y, "mask": y["mask"][:, ::2, ::2]}, "'mask' is "),
        (x, {**y, "mask": y["mask"][: count - 1]}, "'mask' is "),
        (x, {**y, "label": y["label"][:1]}, "'label' is "),
        ({**x, "unlabeled_area": area}, y, "'unlabeled_area' is "),
        ({**x, "unlabeled": x["unlabeled"][..., :1]}, y, "3 channels, the unlabelled ones 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.compute_loss(inputs, targets, {})


def test_inputs_of_a_training_batch_are_no_images_to_predict(model):
    with pytest.raises(ValueError, match="not the inputs of a training batch"):
        model.predict(dict(BATCH[0]))
    with pytest.raises(ValueError, match="0..255|255"):
        model.embed(IMAGES.images / 255)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"treshold": 0.9}, "FixMatch has no argument `treshold`. Did you mean `threshold`?"),
        ({"total_steps": 6.5}, "`total_steps` must be a whole number of at least 1, found 6.5"),
        ({"num_classes": 1}, "`num_classes` must be a whole number of at least 2, found 1"),
        ({"num_labels": True}, "`num_labels` must be a whole number of at least 2, found True"),
        ({"per_image_boxes": "no"}, "`per_image_boxes` must be True or False, found 'no'"),
    ],
)
def test_arguments_are_known_and_of_their_kind(wrong, message):
    method = AugSeg if "per_image_boxes" in wrong else FixMatch
    with pytest.raises(ValueError, match=re.escape(message)):
        method(**arguments(**wrong))
