"""Scores of pixels against the layers written out over the members of a class."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import ClassSelector
from tests.gradients import gradient
from tests.layers.compiled import compiled

EMBEDDINGS = np.random.default_rng(0).normal(size=(14, 5)).astype("float32")
LABELS = np.array([0, 1, 2, 255] * 3 + [1, 2])
MEMBERS = (LABELS == np.arange(4)[:, None]).astype("float32")  # the last class has none


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def selector(seed=1):
    """One whose BatchNorms do something."""
    layer = ClassSelector(4, 6)
    layer.build((None, 5))
    random = np.random.default_rng(seed)
    layer.set_weights([random.uniform(0.5, 1.5, w.shape) * random.choice([-1, 1], w.shape) for w in layer.weights])
    for head in layer.heads:
        head.norms[0].moving_variance.assign(np.abs(numpy(head.norms[0].moving_variance)))
    return layer


def scores_by_hand(head, x, among, training=True):
    """Dense, BatchNorm over the rows `among`, LeakyReLU(0.2), dense, sigmoid."""
    dense, norm, end = head.hidden[0], head.norms[0], head.output_layer
    hidden = x.astype("float64") @ numpy(dense.kernel) + numpy(dense.bias)
    mean, variance = hidden[among].mean(0), hidden[among].var(0)
    if not training:
        mean, variance = numpy(norm.moving_mean), numpy(norm.moving_variance)
    hidden = (hidden - mean) / np.sqrt(variance + 1e-5) * numpy(norm.gamma) + numpy(norm.beta)
    logits = np.where(hidden > 0, hidden, 0.2 * hidden) @ numpy(end.kernel) + numpy(end.bias)
    return 1 / (1 + np.exp(-logits[:, 0]))


def test_scores_of_the_members():
    layer = selector()
    before = numpy(layer.heads[2].norms[0].moving_mean)
    expected = [scores_by_hand(head, EMBEDDINGS, MEMBERS[c] > 0) for c, head in enumerate(layer.heads[:2], 1)]
    step = compiled(lambda x, m: layer(x, m, training=True), layer.variables)
    found = numpy(step(ops.convert_to_tensor(EMBEDDINGS), ops.convert_to_tensor(MEMBERS)))
    assert found.shape == (4, 14) and not found[0].any()
    for c, each in enumerate(expected, 1):
        chosen = MEMBERS[c] > 0
        np.testing.assert_allclose(found[c, chosen], each[chosen], atol=1e-4)
        assert np.ptp(each[chosen]) > 0.05
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(numpy(layer.heads[2].norms[0].moving_mean), before)  # nobody moves it


def test_moving_statistics_outside_training():
    layer = selector()
    found = numpy(layer(EMBEDDINGS, MEMBERS, training=False))
    for c, head in enumerate(layer.heads, 1):
        np.testing.assert_allclose(found[c], scores_by_hand(head, EMBEDDINGS, MEMBERS[c] > 0, False), atol=1e-5)


def test_the_selector_learns_the_embeddings_do_not():
    layer = selector()

    def total(x, kernel):
        mapping = [(layer.heads[0].hidden[0].kernel, kernel)]
        mapping += [(v, v.value) for v in layer.variables if v is not layer.heads[0].hidden[0].kernel]
        with keras.StatelessScope(state_mapping=mapping):
            return ops.sum(
                layer(x, MEMBERS, training=True)[1] * ops.convert_to_tensor(MEMBERS[1] * np.arange(14, dtype="float32"))
            )

    kernel = numpy(layer.heads[0].hidden[0].kernel)
    assert not gradient(lambda x: total(x, ops.convert_to_tensor(kernel)), EMBEDDINGS).any()
    slope = gradient(lambda k: total(ops.convert_to_tensor(EMBEDDINGS), k), kernel)
    assert np.abs(slope).max() > 1e-2 and np.isfinite(slope).all()


def test_float32_round_trip_and_errors():
    layer = ClassSelector(3, 4, dtype="mixed_float16")
    found = layer(ops.cast(EMBEDDINGS, "float16"), MEMBERS[:3], training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert copy.get_config() == layer.get_config()
    copy.set_weights(layer.get_weights())
    again, first = (numpy(each(EMBEDDINGS, MEMBERS[:3], training=False)) for each in (copy, layer))
    np.testing.assert_array_equal(again, first)
    with pytest.raises(ValueError, match="`num_classes` must be a whole number of at least 2, found 1"):
        ClassSelector(1)
    with pytest.raises(ValueError, match="`hidden_units` must be a whole number of at least 1, found 0"):
        ClassSelector(2, 0)
