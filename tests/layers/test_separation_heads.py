"""Projector and predictor against their layers written out."""

from __future__ import annotations

import json

import keras
import numpy as np
from keras import ops

from keras_semimed.layers import SeparationHeads
from tests.gradients import gradient

FEATURES = np.random.default_rng(0).normal(size=(2, 3, 2, 5)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def shaken_heads(classes=3, units=4, width=5, seed=1, **arguments):
    """Heads whose BatchNorms do something."""
    layer = SeparationHeads(classes, units, **arguments)
    layer.build((None, None, None, width))
    shake(layer, seed)
    return layer


def shake(layer, seed=1):
    """Random weights and statistics."""
    random = np.random.default_rng(seed)
    for variable in layer.variables:
        drawn = random.uniform(0.3, 1.2, tuple(variable.shape))
        sign = 1 if variable.name == "moving_variance" else random.choice([-1, 1], tuple(variable.shape))
        variable.assign((drawn * sign).astype("float32"))


def projected(head, x, training=True, epsilon=1e-5):
    """Dense without bias, BatchNorm, ReLU, dense: rows `(M, D)`."""
    hidden = np.asarray(x, "float64") @ numpy(head.hidden.kernel)
    mean, variance = hidden.mean(0), hidden.var(0)
    if not training:
        mean, variance = numpy(head.norm.moving_mean), numpy(head.norm.moving_variance)
    hidden = (hidden - mean) / np.sqrt(variance + epsilon) * numpy(head.norm.gamma) + numpy(head.norm.beta)
    return np.maximum(hidden, 0) @ numpy(head.output_layer.kernel) + numpy(head.output_layer.bias)


def test_predictor_on_projector():
    layer, rows = shaken_heads(), FEATURES.reshape(-1, 5)
    for training in (False, True):
        expected = projected(layer.predictor, projected(layer.projector, rows, training), training)
        found = numpy(layer(FEATURES, training=training))
        np.testing.assert_allclose(found, expected.reshape(2, 3, 2, 4), rtol=1e-3, atol=1e-3)


def test_prototypes_come_from_the_projector_in_inference_mode_as_constants():
    layer = shaken_heads()
    expected = projected(layer.projector, FEATURES.reshape(-1, 5), training=False)
    np.testing.assert_allclose(numpy(layer.project(FEATURES)).reshape(-1, 4), expected, rtol=1e-4, atol=1e-4)
    assert not gradient(lambda x: ops.sum(layer.project(x)), FEATURES).any()
    kernel = layer.projector.output_layer.kernel

    def total(values):
        with keras.StatelessScope(state_mapping=[(kernel, values)]):
            return ops.sum(layer.project(ops.convert_to_tensor(FEATURES)))

    assert not gradient(total, numpy(kernel)).any()


def test_selector_scores_what_they_give_and_round_trip():
    layer = shaken_heads(dtype="mixed_bfloat16")
    assert layer.projector.compute_dtype == "bfloat16" and layer.selector.compute_dtype == "float32"
    embeddings = ops.reshape(layer(ops.cast(FEATURES, "bfloat16"), training=True), (-1, 4))
    assert tuple(layer.selector(embeddings, np.ones((3, 12), "float32"), training=True).shape) == (3, 12)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert copy.get_config() == layer.get_config()
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(numpy(copy.project(FEATURES)), numpy(layer.project(FEATURES)))
