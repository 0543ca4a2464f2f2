"""Saliency maps against derivatives worked out by hand and by differences."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import SaliencyMap
from tests.gradients import gradient
from tests.layers.compiled import compiled

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 1, (2, 3, 4, 3)).astype("float32")
FIRST = RANDOM.normal(0, 0.5, (36, 5)).astype("float32")
SECOND = RANDOM.normal(0, 0.5, (5, 3)).astype("float32")


def _linear(images):
    return ops.matmul(ops.reshape(images, (-1, 36)), ops.convert_to_tensor(FIRST))


def _curved(images):
    return ops.matmul(ops.tanh(_linear(images)), ops.convert_to_tensor(SECOND))


def _saliency(score, images=IMAGES):
    return ops.convert_to_numpy(SaliencyMap()(ops.convert_to_tensor(images), score=score))


def test_linear_score_gives_the_weights_of_the_largest_logit():
    result = _saliency(_linear)
    assert result.shape == (2, 3, 4, 1)
    for n in range(2):
        winner = (IMAGES[n].reshape(-1) @ FIRST).argmax()
        expected = np.abs(FIRST[:, winner]).reshape(3, 4, 3).max(axis=-1)
        np.testing.assert_allclose(result[n, :, :, 0], expected / expected.max(), atol=1e-5)


def test_curved_score_against_differences():
    def largest(image):
        return (np.tanh(image.reshape(-1) @ FIRST) @ SECOND).max()

    result = _saliency(_curved)
    for n in range(2):
        image = IMAGES[n].astype("float64")
        slopes = np.zeros(image.shape)
        for index in np.ndindex(*image.shape):
            step = np.zeros(image.shape)
            step[index] = 1e-5
            slopes[index] = (largest(image + step) - largest(image - step)) / 2e-5
        expected = np.abs(slopes).max(axis=-1)
        np.testing.assert_allclose(result[n, :, :, 0], expected / expected.max(), atol=1e-4)


def test_no_gradient_gives_zeros():
    flat = _saliency(lambda images: ops.relu(_linear(images) * 0.0 - 1.0))
    np.testing.assert_array_equal(flat, 0.0)


def test_it_is_a_constant_for_what_follows():
    layer = SaliencyMap()
    images = ops.convert_to_tensor(IMAGES)
    by_image = gradient(lambda x: ops.sum(layer(x, score=_curved)) + 0.0 * ops.sum(x), IMAGES)
    np.testing.assert_array_equal(by_image, 0.0)

    def by_weight(weight):
        return ops.sum(layer(images, score=lambda x: ops.matmul(_linear(x), weight))) + 0.0 * ops.sum(weight)

    np.testing.assert_array_equal(gradient(by_weight, SECOND), 0.0)


def test_compiled_equals_eager():
    layer = SaliencyMap()
    result = compiled(lambda x: layer(x, score=_curved), [])(ops.convert_to_tensor(IMAGES))
    np.testing.assert_allclose(ops.convert_to_numpy(result), _saliency(_curved), atol=1e-5)


@keras.saving.register_keras_serializable(package="keras_semimed_tests")
class Explained(keras.Model):
    """A small classifier that returns its saliency map, and trains through it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(4, 3, activation="tanh")
        self.norm = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.top = keras.layers.Dense(3)
        self.saliency = SaliencyMap()
        self.out = keras.layers.Conv2D(1, 1)

    def score(self, images, training=False):
        return self.top(self.pool(self.norm(self.convolution(images), training=training)))

    def call(self, images, training=False):
        logits = self.score(images, training=training)
        saliency = self.saliency(images, score=self.score)
        return {"logits": logits, "saliency": saliency, "mask": self.out(saliency)}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_fit_and_predict(policy, tmp_path):
    images = RANDOM.uniform(0, 1, (4, 6, 6, 3)).astype("float32")
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = Explained()
    finally:
        keras.config.set_dtype_policy(previous)
    model.compile("sgd", loss={"mask": "mse", "saliency": None, "logits": None})
    history = model.fit(images, {"mask": np.ones((4, 6, 6, 1), "float32")}, batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    result = model.predict(images, batch_size=2, verbose=0)["saliency"]
    assert result.dtype == "float32"
    np.testing.assert_allclose(result.max(axis=(1, 2, 3)), 1.0, atol=1e-6)
    if policy == "float32":
        expected = ops.convert_to_numpy(SaliencyMap()(ops.convert_to_tensor(images), score=model.score))
        np.testing.assert_allclose(result, expected, atol=1e-4)
        model.save(tmp_path / "explained.keras")
        loaded = keras.saving.load_model(tmp_path / "explained.keras")
        np.testing.assert_allclose(loaded.predict(images, verbose=0)["saliency"], result, atol=1e-5)


def test_config_and_symbolic_shape():
    layer = SaliencyMap.from_config(SaliencyMap(name="map").get_config())
    assert layer.name == "map"
    symbolic = layer(keras.Input((6, 5, 3)), score=_linear)
    assert symbolic.shape == (None, 6, 5, 1)
    assert symbolic.dtype == "float32"
