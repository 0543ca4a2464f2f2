"""Situations in which training or prediction used to go wrong without a word."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed import backend
from keras_semimed.data import EvaluationBatches, ImageSet, SemiSupervisedBatches, as_tf_data, from_arrays
from keras_semimed.models import Supervised
from tests.models.common import arguments, batches, image_set, tiny_encoder, weights_of

IMAGES = image_set(4, 9)
TARGETS = {"mask": IMAGES.masks, "label": IMAGES.labels}
BATCH = batches(steps=1)[0]


def segmenter(**changes) -> Supervised:
    return Supervised(**arguments(tasks="segmentation", **{"total_steps": 100, **changes}))


@pytest.fixture(scope="module")
def model() -> Supervised:
    """A compiled model for both tasks; nobody trains it."""
    made = Supervised(**arguments())
    made.compile()
    return made


@pytest.fixture(scope="module")
def trained() -> Supervised:
    """A model for masks, to be trained at will."""
    made = segmenter(teacher_momentum=0.9)
    made.compile()
    return made


class Pairs(keras.utils.PyDataset):
    """Always the same batch."""

    def __init__(self, *batch, count: int = 2) -> None:
        super().__init__()
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.batch


@pytest.mark.parametrize("pipeline", [False, True])
def test_many_short_fits_go_through_the_data_as_one_long_fit(trained, monkeypatch, pipeline):
    if pipeline:
        pytest.importorskip("tensorflow")
    images = image_set(40)
    data = from_arrays(images.images, images.masks, unlabeled=images.images, batch_size=4, steps_per_epoch=2)
    steps = []
    monkeypatch.setattr(data, "at", lambda step, at=data.at: steps.append(step) or at(step))
    other = batches(steps=2, batch_size=4, unlabeled=4)
    for count in range(5):
        trained.fit(as_tf_data(data) if pipeline else data, epochs=1, verbose=0)
        trained.fit(other, epochs=1, verbose=0)
        assert data.epoch == other.epoch == count + 1
    trained.fit(data, epochs=2, verbose=0)
    assert list(dict.fromkeys(steps)) == list(range(14))
    assert len({index for step in range(10) for index in data.indices(step)[1]}) == 40
    trained.fit(data, initial_epoch=1, epochs=2, verbose=0)
    assert data.epoch == 2
    trained.fit(data, initial_epoch=0, verbose=0)
    assert data.epoch == 1


def weighted(model: Supervised) -> None:
    x, y = BATCH
    model.fit(Pairs(x, y, np.zeros(3)), verbose=0)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda m: m.train_on_batch(*BATCH, sample_weight=np.zeros(3)), "sample_weight"),
        (lambda m: m.train_on_batch(*BATCH, np.zeros(3)), "sample_weight"),
        (lambda m: m.train_on_batch(*BATCH, class_weight={0: 1.0, 1: 2.0}), "class_weight"),
        (lambda m: m.test_on_batch(IMAGES.images, TARGETS, sample_weight=np.zeros(4)), "sample_weight"),
        (lambda m: m.evaluate(IMAGES.images, TARGETS, sample_weight=np.zeros(4)), "sample_weight"),
        (weighted, "sample_weight"),
        (lambda m: m.fit(batches(), sample_weight=np.zeros(3)), "sample_weight"),
        (lambda m: m.fit(batches(), validation_data=(IMAGES.images, TARGETS, np.zeros(4))), "sample_weight"),
        (lambda m: m.fit(batches(), class_weight={0: 1.0, 1: 2.0}), "class_weight"),
        (lambda m: m.fit(*BATCH, validation_split=0.5), "validation_split"),
        (lambda m: m.fit(batches(), batch_size=8), "batch_size"),
        (lambda m: m.fit(batches(), steps_per_epoch=1), "steps_per_epoch"),
        (lambda m: m.compile(loss="mse"), "loss"),
        (lambda m: m.compile(loss_weights=[1.0]), "loss_weights"),
        (lambda m: m.compile(weighted_metrics=["accuracy"]), "weighted_metrics"),
        (lambda m: m.compile(metrics=["accuracy"]), "metrics"),
        (lambda m: m.compile(metrics={"masks": ["accuracy"]}), "'mask' and 'label'.*'masks'"),
        (lambda m: m.compile(metrics={"label": [keras.metrics.F1Score()]}), "'f1_score' does not take"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(model, call, name):
    with pytest.raises(ValueError, match=name):
        call(model)


def test_metrics_of_compile_are_those_of_the_labelled_images(tmp_path):
    model = Supervised(**arguments())
    own = keras.metrics.MeanIoU(2, sparse_y_pred=False, name="iou")
    model.compile(metrics={"mask": [own, "accuracy"], "label": "accuracy"})
    masks = IMAGES.masks.copy()
    masks[:, :9] = 255
    validation = (IMAGES.images, {"mask": masks, "label": IMAGES.labels})
    history = model.fit(batches(), verbose=0, validation_data=validation).history
    assert history["label_accuracy"] == history["accuracy"]
    assert 0 < history["mask_iou"][0] < history["mask_accuracy"][0] <= 1
    predicted, known = model.predict(IMAGES.images, verbose=0)["mask"].argmax(-1), masks != 255
    found = model.evaluate(*validation, verbose=0, return_dict=True)
    assert found["mask_accuracy"] == pytest.approx((predicted == masks)[known].mean())
    overlaps = [
        ((predicted == c) & (masks == c)).sum() / ((predicted == c) | (masks == c))[known].sum() for c in (0, 1)
    ]
    assert found["mask_iou"] == pytest.approx(np.mean(overlaps), rel=1e-5)
    assert history["val_mask_iou"][0] == pytest.approx(found["mask_iou"], rel=1e-5)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(*validation, verbose=0, return_dict=True)["mask_iou"] == pytest.approx(found["mask_iou"])


def regular(strength: float) -> keras.Model:
    """The tiny encoder with penalties on its kernels."""
    encoder = tiny_encoder()
    config = encoder.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "Conv2D":
            layer["config"]["kernel_regularizer"] = keras.regularizers.L2(strength)
    return keras.Model.from_config(config)


def test_penalties_of_weights_are_part_of_the_loss():
    models = [segmenter(encoder=encoder, seed=1, teacher_momentum=0.9) for encoder in (tiny_encoder(), regular(0.5))]
    models[1].set_weights(models[0].get_weights())
    kernels = [v for v in models[1].trainable_variables if v.regularizer is not None]
    before = [ops.convert_to_numpy(v.value) for v in kernels]
    logs = []
    for model in models:
        model.compile(keras.optimizers.SGD(0.1))
        logs.append(model.train_on_batch(*BATCH, return_dict=True))
    plain, penalized = logs
    assert len(kernels) == 5 and "regularization" not in plain
    expected = 0.5 * sum((value.astype("float64") ** 2).sum() for value in before)
    assert float(penalized["regularization"]) == pytest.approx(expected, rel=1e-5)
    assert float(penalized["loss"]) == pytest.approx(float(plain["loss"]) + expected, rel=1e-5)
    pairs = zip(*(model.trainable_variables for model in models), strict=True)
    moved = [
        ops.convert_to_numpy(b.value) - ops.convert_to_numpy(a.value) for a, b in pairs if b.regularizer is not None
    ]
    for difference, start in zip(moved, before, strict=True):
        np.testing.assert_allclose(difference, -0.1 * start, rtol=1e-3, atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Adding(keras.layers.Layer):
    def call(self, x):
        self.add_loss(ops.mean(x))
        return x


@pytest.mark.parametrize("layer", [keras.layers.ActivityRegularization(l2=1.0), Adding()])
def test_losses_of_what_an_encoder_computes_are_refused(layer):
    encoder = tiny_encoder()
    levels = dict(encoder.output)
    levels["P5"] = layer(levels["P5"])
    with pytest.raises(ValueError, match="`encoder` adds losses of what it computes"):
        segmenter(encoder=keras.Model(encoder.input, levels))


def test_a_frozen_encoder_is_saved_with_the_optimizer(tmp_path):
    model = segmenter(train_encoder=False, teacher_momentum=0.9, teacher_statistics="own")
    start = weights_of(model.encoder)
    model.compile()
    model.fit(batches(), verbose=0)
    for network in (model.network, model.teacher):
        (encoder,) = network.encoders
        for value, first in zip(weights_of(encoder), start, strict=True):
            np.testing.assert_array_equal(value, first)  # BatchNorm's statistics too
    assert len(model.encoder.trainable_variables) == 0 < len(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*([Ss]kipping|trainable|optimizer)")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 3
    assert loaded.train_encoder is False and loaded.get_config() == model.get_config()


def test_the_encoder_is_a_layer_that_freezes():
    model = Supervised(**arguments(teacher_momentum=0.9))
    every = len(model.trainable_variables)
    assert model.encoder.trainable and model.get_config()["train_encoder"] is True
    model.encoder.trainable = False
    assert not model.encoder.trainable and model.get_config()["train_encoder"] is False
    own = sum(len(encoder.trainable_variables) for encoder in model.network.encoders)
    assert own == 0 < len(model.trainable_variables) < every
    assert "frozen_layers" not in model.get_config()
    model.compile()
    for encoder in model.teacher.encoders:  # BatchNorm of what is frozen uses moving statistics, the teacher's too
        assert not any(each.trainable for each in encoder.layers if isinstance(each, keras.layers.BatchNormalization))
    model.encoder.trainable = True
    assert len(model.trainable_variables) == every


def test_any_other_pattern_of_frozen_layers_is_saved_too():
    model = segmenter(teacher_momentum=0.9)
    model.encoder.layers[1].trainable = False
    paths = [v.path for v in model.trainable_variables]
    copy = Supervised.from_config(model.get_config())
    assert len(copy.trainable_variables) == len(paths) == len(segmenter().trainable_variables) - 2
    assert not copy.encoder.layers[1].trainable and copy.encoder.layers[4].trainable


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
    kernel = model.network.trainable_variables[0]
    kernel.assign(ops.convert_to_numpy(kernel.value) * np.nan)
    with pytest.raises(ValueError, match=r"'mask' of images\[0\] is not finite.*4 of 4 images.*diverged"):
        model.predict(IMAGES.images, verbose=0)


def test_a_run_behind_total_steps_warns(trained):
    done = trained.step.value * 1
    trained.step.assign(100)
    with pytest.warns(UserWarning, match="total_steps=100, has done 100 and is to do 106: .*start_from"):
        trained.fit(batches(), epochs=2, verbose=0)
    trained.step.assign(96)
    with pytest.warns(UserWarning, match="total_steps=100, has done 96 and is to do 102"):
        trained.fit(batches(), initial_epoch=1, epochs=3, verbose=0)
    trained.step.assign(94)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*total_steps")
        trained.fit(batches(), epochs=2, verbose=0)
    trained.step.assign(done)


class Group(Supervised):
    """With two networks and two averages."""

    students, teachers = 2, 2


def test_averages_never_train_whatever_is_set_above_or_on_them():
    model = Group(**arguments(tasks="segmentation", teacher_momentum=0.9))
    expected = [v.path for v in model.trainable_variables]
    assert len(expected) == 2 * len(model.network.trainable_variables)
    model.trainable = False
    assert model.trainable_variables == []
    model.trainable = True
    assert [v.path for v in model.trainable_variables] == expected
    for layer in model.layers:
        layer.trainable = True
    model.teacher_networks[1].network.trainable = True
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.5))
    assert [v.path for v in model.trainable_variables] == expected
    assert all(not teacher.trainable_variables for teacher in model.teacher_networks)


@pytest.mark.parametrize(
    "images, message",
    [
        (IMAGES.images[0], r"got \(32, 32, 3\); one image is `images\[None\]`"),
        (IMAGES.images[..., 0], r"got \(4, 32, 32\); grey images are `images\[..., None\]`"),
        (np.moveaxis(IMAGES.images, -1, 1), r"got \(4, 3, 32, 32\); channels come last"),
        (np.zeros((4, 32, 32, 4), "uint8"), r"got \(4, 32, 32, 4\)"),
        (np.zeros((32, 32), "uint8"), r"got \(32, 32\)"),
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
    with pytest.raises(ValueError, match=rf"must be \(N, H, W, 1 or 3\); {message}"):
        call(model, images)


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


@pytest.mark.parametrize(
    "callback",
    [keras.callbacks.ReduceLROnPlateau(monitor="loss"), keras.callbacks.LearningRateScheduler(lambda _: 1.0)],
)
def test_a_callback_that_needs_a_learning_rate_is_refused_before_the_run(trained, callback):
    for given in (callback, [callback], keras.callbacks.CallbackList([callback])):
        with pytest.raises(ValueError, match=f"{type(callback).__name__}.*Adam"):
            trained.fit(batches(), callbacks=given, verbose=0)


def test_training_on_replicas_is_refused(trained, monkeypatch):
    monkeypatch.setattr(backend, "replicas", lambda model: 2)
    for call in (lambda: trained.fit(batches(), verbose=0), lambda: trained.train_on_batch(*BATCH)):
        with pytest.raises(ValueError, match="strategy with 2 replicas"):
            call()
