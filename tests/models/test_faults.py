"""Situations in which training or prediction used to go wrong without a word."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed import backend
from keras_semimed.data import as_tf_data, from_arrays
from keras_semimed.models import FixMatch, Hermes, MeanTeacher, Supervised
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
    model = MeanTeacher(
        **arguments(
            tasks="segmentation", total_steps=100, train_encoder=False, teacher_momentum=0.9, teacher_statistics="own"
        )
    )
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


def test_a_bank_never_trains():
    model = Hermes(**arguments(bank_size=8))
    expected = [v.path for v in model.trainable_variables]
    model.trainable = False
    model.trainable = True
    model.bank.trainable = True
    assert [v.path for v in model.trainable_variables] == expected and not model.bank.trainable_variables


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


def test_one_overflow_in_float16_leaves_weights_and_statistics_as_they_were():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = FixMatch(**arguments(tasks="segmentation"))
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile()
    model.train_on_batch(*BATCH)
    kernel = model.network.trainable_variables[0]
    good = ops.convert_to_numpy(kernel)
    kernel.assign(good * 1e30)  # infinite in float16
    before = [ops.convert_to_numpy(weight) for weight in model.network.weights]
    model.train_on_batch(*BATCH)
    for weight, value in zip(model.network.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value, err_msg=weight.path)
    kernel.assign(good)
    assert np.isfinite(model.predict(IMAGES.images, verbose=0)["mask"]).all()
    assert int(ops.convert_to_numpy(model.step)) == 2
