"""Features with a share of the next image's."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import EmbeddingFusion
from tests.gradients import gradient
from tests.losses.helpers import compiled


def fused(features, strength):
    return np.stack(
        [(1 - strength) * x + strength * y for x, y in zip(features, [*features[1:], features[0]], strict=True)]
    )


def test_the_numbers_of_the_specification():
    features = np.arange(4, dtype="float32")
    found = ops.convert_to_numpy(EmbeddingFusion(0.1)(features, training=True))
    np.testing.assert_allclose(found, [0.1, 1.1, 2.1, 2.7], rtol=1e-6)
    for strength, training in ((0.1, False), (0.1, None), (0.0, True)):
        found = ops.convert_to_numpy(EmbeddingFusion(strength)(features, training=training))
        np.testing.assert_array_equal(found, features)


@pytest.mark.parametrize("strength", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 6), (1, 2, 2, 3)])
def test_the_next_image(shape, strength):
    features = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = EmbeddingFusion(strength)
    found = ops.convert_to_numpy(compiled(lambda x: layer(x, training=True), features, dynamic_batch=True))
    np.testing.assert_allclose(found, fused(features, strength), rtol=1e-5, atol=1e-6)


def test_gradient_flows_through_both():
    features, weights = np.zeros((3, 2), "float32"), np.array([[1], [10], [100]], "float32")
    layer = EmbeddingFusion(0.25)
    found = gradient(lambda x: ops.sum(layer(x, training=True) * ops.convert_to_tensor(weights)), features)
    np.testing.assert_allclose(found, np.repeat([[0.75 + 25], [7.5 + 0.25], [75 + 2.5]], 2, axis=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_dtype_of_the_features_stays(dtype):
    features = ops.cast(np.random.default_rng(0).normal(size=(3, 4)), dtype)
    found = EmbeddingFusion(0.1, dtype=f"mixed_{dtype}")(features, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    exact = fused(ops.convert_to_numpy(ops.cast(features, "float32")), 0.1)
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32")), exact, atol=2e-2)


def test_round_trip_and_errors():
    layer = EmbeddingFusion(0.3)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert type(copy) is EmbeddingFusion and copy.get_config() == layer.get_config() and not layer.variables
    for wrong in (-0.1, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match=rf"`strength` must be within \[0, 1\], found {wrong}"):
            EmbeddingFusion(wrong)
