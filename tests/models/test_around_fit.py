"""What Keras offers around a training: callbacks, workers, copies, other backends, a long life."""

from __future__ import annotations

import copy
import gc
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed import backend
from keras_semimed.data import SemiSupervisedBatches
from keras_semimed.models import FixMatch, MeanTeacher, Supervised
from tests.models.common import arguments, batches, image_set, weights_of

BACKEND = keras.backend.backend()
IMAGES = image_set(4, 9)


def model_of_masks(**changes) -> Supervised:
    return Supervised(**arguments(tasks="segmentation", **{"total_steps": 100, "teacher_momentum": 0.9, **changes}))


@pytest.fixture(scope="module")
def trained() -> Supervised:
    """A compiled model; its state is set anew before it is trained."""
    model = model_of_masks()
    model.compile()
    return model


@pytest.fixture(scope="module")
def start(trained) -> dict[str, list[np.ndarray]]:
    """The state that it began with."""
    return state_of(trained)


def state_of(model: keras.Model) -> dict[str, list[np.ndarray]]:
    return {
        name: [np.array(ops.convert_to_numpy(v.value)) for v in variables]
        for name, variables in (("model", model.variables), ("optimizer", model.optimizer.variables))
    }


def put_back(model: keras.Model, state: dict[str, list[np.ndarray]]) -> None:
    for name, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for variable, value in zip(variables, state[name], strict=True):
            variable.assign(value)


def assert_same(first: dict[str, list[np.ndarray]], second: dict[str, list[np.ndarray]], **tolerance) -> None:
    for name in first:
        for a, b in zip(first[name], second[name], strict=True):
            np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.fixture(scope="module")
def whole(trained, start) -> dict[str, list[np.ndarray]]:
    """The state after two epochs of four steps."""
    put_back(trained, start)
    trained.fit(batches(steps=4), epochs=2, verbose=0)
    return state_of(trained)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch takes one step an execution")
@pytest.mark.parametrize("count", [2, 3])
def test_several_steps_an_execution_are_the_same_steps(trained, start, whole, count):
    model = Supervised.from_config(trained.get_config())
    model.compile(steps_per_execution=count)
    put_back(model, start)
    model.fit(batches(steps=4), epochs=2, verbose=0)
    assert int(ops.convert_to_numpy(model.step)) == 8
    assert_same(state_of(model), whole, rtol=1e-4, atol=1e-5)


class Interrupt(keras.callbacks.Callback):
    """Stops a run with an error in its second epoch."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if int(self.model.optimizer.iterations) >= 6 if BACKEND == "torch" else self.count == 6:
            raise KeyboardInterrupt
        self.count += 1

    count = 1


@pytest.mark.parametrize("again", ["same data", "new data"])
def test_a_run_that_is_restored_ends_like_one_in_one_go(trained, start, whole, tmp_path, again):
    put_back(trained, start)
    data, backup = batches(steps=4), lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        trained.fit(data, epochs=2, verbose=0, callbacks=[backup(), Interrupt()])
    put_back(trained, start)  # as in a new process
    data = data if again == "same data" else batches(steps=4)
    trained.fit(data, epochs=2, verbose=0, callbacks=[backup()])
    assert_same(state_of(trained), whole)
    trained.fit(data, epochs=1, verbose=0)
    assert data.epoch == 3 and int(ops.convert_to_numpy(trained.step)) == 12


def test_early_stopping_brings_the_best_teacher_back(trained, start):
    put_back(trained, start)
    states, losses = [], [3.0, 1.0, 2.0, 2.0]

    def worse(epoch, logs):
        logs["val_loss"] = losses[epoch]
        states.append([weights_of(network) for network in (trained.network, trained.teacher)])

    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    trained.fit(
        batches(steps=2), epochs=9, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=worse), stop]
    )
    assert len(states) == 4
    for network, best, last in zip((trained.network, trained.teacher), states[1], states[-1], strict=True):
        for value, expected in zip(weights_of(network), best, strict=True):
            np.testing.assert_array_equal(value, expected)
        assert any((a != b).any() for a, b in zip(best, last, strict=True))


@pytest.mark.parametrize("processes", [False, True])
def test_workers_give_the_batches_in_the_same_order(trained, start, whole, processes):
    put_back(trained, start)
    data = batches(steps=4)
    data.workers, data.use_multiprocessing = 2, processes
    trained.fit(data, epochs=1, verbose=0)
    trained.fit(data, epochs=1, verbose=0)
    assert data.epoch == 2
    assert_same(state_of(trained), whole)


def test_copies_predict_the_same_and_train_on_alone(trained, start):
    put_back(trained, start)
    expected = trained.predict(IMAGES.images, verbose=0)["mask"]
    copies = [copy.deepcopy(trained), pickle.loads(pickle.dumps(trained)), keras.models.clone_model(trained)]
    copies[2].set_weights(trained.get_weights())
    for other in copies:
        np.testing.assert_array_equal(other.predict(IMAGES.images, verbose=0)["mask"], expected)
    copies[0].fit(batches(steps=1), verbose=0)
    np.testing.assert_array_equal(trained.predict(IMAGES.images, verbose=0)["mask"], expected)
    assert int(ops.convert_to_numpy(copies[0].step)) == 1 and int(ops.convert_to_numpy(trained.step)) == 0


OTHER = {"torch": "jax", "jax": "torch", "tensorflow": "torch"}[BACKEND]
LOAD = """
import sys, keras, numpy, keras_semimed.models
model = keras.saving.load_model(sys.argv[1])
assert model.jit_compile == (keras.backend.backend() != "torch"), "as usual on this backend, not on its first one"
numpy.save(sys.argv[2], model.predict(numpy.load(sys.argv[3]), verbose=0)["mask"])
"""


@pytest.mark.skipif(importlib.util.find_spec(OTHER) is None, reason=f"{OTHER} is not installed")
def test_another_backend_loads_it(trained, start, tmp_path):
    put_back(trained, start)
    trained.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES.images)
    files = [str(tmp_path / name) for name in ("model.keras", "mask.npy", "images.npy")]
    command = [sys.executable, "-W", "ignore", "-c", LOAD, *files]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "KERAS_BACKEND": OTHER})
    found = np.load(files[1])
    np.testing.assert_allclose(found, trained.predict(IMAGES.images, verbose=0)["mask"], atol=1e-6)


def test_an_optimizer_that_was_saved_on_pytorch_trains_on_any_backend():
    written = {
        "module": "keras.src.backend.torch.optimizers.torch_sgd",
        "class_name": "SGD",
        "config": {"learning_rate": 0.5},
        "registered_name": "SGD",
    }
    both = {"class_name": "LossScaleOptimizer", "module": "keras.optimizers", "config": {"inner_optimizer": written}}
    optimizer = keras.saving.deserialize_keras_object(backend.portable({**both, "registered_name": None}))
    assert type(optimizer.inner_optimizer) is type(keras.optimizers.SGD())
    assert float(optimizer.inner_optimizer.learning_rate) == 0.5
    kept = backend.portable([{"module": "keras.metrics", "registered_name": "x"}, 1])
    assert kept == [{"module": "keras.metrics", "registered_name": "x"}, 1]


def test_a_teacher_of_momentum_0_is_its_student():
    model = MeanTeacher(**arguments(tasks="segmentation", teacher_momentum=0.0))
    model.compile()
    model.fit(batches(steps=2), verbose=0)
    for ours, theirs in zip(weights_of(model.teacher), weights_of(model.network), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fewer_labelled_images_than_a_batch_holds(trained, start):
    put_back(trained, start)
    data = SemiSupervisedBatches(image_set(3), image_set(5, 1), 8, 2, steps_per_epoch=2)
    assert np.isfinite(trained.fit(data, verbose=0).history["loss"]).all()
    assert int(ops.convert_to_numpy(trained.step)) == 2


def test_a_step_whose_gradients_overflow_is_skipped():
    model = model_of_masks(dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**40))
    before = weights_of(model.encoder)
    learnt = [v.trainable for v in model.encoder.variables]
    model.fit(batches(steps=1), verbose=0)
    assert float(ops.convert_to_numpy(model.optimizer.dynamic_scale)) == 2.0**39
    for value, first, weight in zip(weights_of(model.encoder), before, learnt, strict=True):
        assert not weight or (value == first).all()
    assert all(np.isfinite(values).all() for values in weights_of(model))


def test_rounds_of_fit_predict_and_evaluate_leave_nothing_behind(trained, start):
    put_back(trained, start)
    data, counts = batches(steps=1), []
    for _ in range(12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest keeps each one that is given
            trained.fit(data, verbose=0)
            trained.predict(IMAGES.images, verbose=0)
            trained.evaluate(IMAGES.images, {"mask": IMAGES.masks}, verbose=0)
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert data.epoch == 12
    assert counts[-1] - counts[5] < 6 * 50, counts


def test_grey_and_colour_images_are_predicted_in_turn():
    model = model_of_masks()
    grey = image_set(2, 5).images.mean(-1, keepdims=True).round()
    for images in (grey, np.repeat(grey, 3, axis=-1), grey):
        predicted = model.predict(images, verbose=0)["mask"]
        called = model.infer(ops.convert_to_tensor(images, "float32"))["mask"]
        np.testing.assert_allclose(predicted, ops.convert_to_numpy(called), atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others trace each number of channels anew")
def test_grey_and_colour_images_are_learnt_from_in_turn():
    model = FixMatch(**arguments(tasks="segmentation", total_steps=12))
    model.compile(model.default_optimizer(learning_rate=1e-2), jit_compile=False)
    losses = []
    for channels in (1, 3, 1):
        data = SemiSupervisedBatches(image_set(4, 5, channels=channels), image_set(4, 6, channels=channels), 4, 4, 4)
        losses += model.fit(data, verbose=0).history["mask_supervised"]
    assert int(model.step) == 12 and losses[2] < losses[0]
