"""Projection heads: two dense layers on the last axis."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import ProjectionHead
from tests.gradients import gradient

MAP = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")


def _weights(head):
    return [ops.convert_to_numpy(weight).astype("float64") for weight in head.weights]


def test_two_dense_layers_with_a_relu_between_and_a_linear_end():
    head = ProjectionHead(6, hidden_units=7)
    result = ops.convert_to_numpy(head(MAP))
    first, first_bias, second, second_bias = _weights(head)
    expected = np.maximum(MAP @ first + first_bias, 0) @ second + second_bias
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert (result < 0).any()


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 2.0])
def test_batch_norm_uses_the_batch_in_training_only(epsilon):
    head = ProjectionHead(6, batch_norm=True, epsilon=epsilon)
    assert ProjectionHead(6, batch_norm=True).norm.epsilon == 1e-3
    result = ops.convert_to_numpy(head(MAP, training=True))
    assert [weight.name for weight in head.weights if "bias" in weight.path] == ["bias"]  # of the end alone
    hidden = MAP @ ops.convert_to_numpy(head.hidden.kernel)
    hidden = (hidden - hidden.mean(axis=(0, 1, 2))) / np.sqrt(hidden.var(axis=(0, 1, 2)) + epsilon)
    expected = np.maximum(hidden, 0) @ ops.convert_to_numpy(head.output_layer.kernel)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert np.abs(ops.convert_to_numpy(head(MAP, training=False)) - result).max() > 1e-3


def test_normalised_embeddings_have_length_one_and_zeros_stay_finite():
    head = ProjectionHead(6, hidden_units=32, normalize=True)
    lengths = np.linalg.norm(ops.convert_to_numpy(head(MAP)), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
    zeros = np.zeros((1, 5), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(head(zeros)), 0.0)
    assert np.isfinite(gradient(lambda x: ops.sum(head(x)), zeros)).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_normalised_embeddings_are_float32_under_mixed_precision(policy):
    head = ProjectionHead(6, hidden_units=32, normalize=True, dtype=policy)
    result = head(MAP)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(np.linalg.norm(ops.convert_to_numpy(result), axis=-1), 1.0, atol=1e-5)
    plain = ProjectionHead(6, dtype=policy)(MAP)
    assert keras.backend.standardize_dtype(plain.dtype) == policy.removeprefix("mixed_")


def test_config_and_file_round_trip(tmp_path):
    inputs = keras.Input((None, None, 5))
    model = keras.Model(inputs, ProjectionHead(6, 7, batch_norm=True, normalize=True, epsilon=1e-5)(inputs))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_allclose(loaded.predict(MAP, verbose=0), model.predict(MAP, verbose=0), atol=1e-6)
