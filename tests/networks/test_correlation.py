"""The correlation head: its layers in order, dropout of whole channels, limits, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.networks import CorrelationHead
from keras_semimed.networks.correlation import check_places, spread_logits
from tests.layers.test_correlation_map import array, dense, map_by_hand, spread_by_hand
from tests.losses.helpers import assert_config_round_trip
from tests.models.common import tiny_encoder
from tests.networks.test_deeplab import block, enlarge


def head(dim=3, units=8, dropout=0.5, **arguments):
    """A head of random weights and statistics, and features."""
    random = np.random.default_rng(0)
    layer = CorrelationHead(dim, units, dropout, **arguments)
    layer.build((None, 4, 3, 5))
    for variable in layer.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(random.uniform(0.2, 1.0, tuple(variable.shape)))
    kernel = layer.projection.convolution.kernel
    kernel.assign(random.normal(size=tuple(kernel.shape)))
    return layer, random.normal(size=(2, 4, 3, 5)).astype("float32")


def by_hand(layer, projected):
    compare = layer.correlation
    sent, received = ((lambda x, d=d: dense(d, x)) for d in (compare.sender, compare.receiver))
    return map_by_hand(projected, sent, received, compare.dim)


def test_map_of_the_projection():
    layer, features = head()
    weights = [*layer.projection.convolution.get_weights(), *layer.projection.normalization.get_weights()]
    projected = block(features.astype("float64"), weights)
    found = layer(features, training=False)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(array(found), by_hand(layer, projected), rtol=2e-3, atol=1e-5)
    assert (projected > 0).any() and (projected == 0).any()
    assert layer.compute_output_shape((None, 4, 3, 5)) == (None, 12, 12)


def test_whole_channels_of_the_projection_are_dropped_in_training(monkeypatch):
    layer, features = head()
    factors = 2.0 * np.random.default_rng(1).integers(0, 2, (2, 8)).astype("float32")
    monkeypatch.setattr(layer.dropout, "draw", lambda count, channels: ops.convert_to_tensor(factors))
    projected = array(layer.projection(features, training=True))
    expected = by_hand(layer, projected * factors[:, None, None, :])
    np.testing.assert_allclose(array(layer(features, training=True)), expected, rtol=2e-3, atol=1e-5)
    assert np.abs(expected - by_hand(layer, projected)).max() > 0.01


def test_logits_are_spread_and_enlarged_to_their_image():
    random = np.random.default_rng(2)
    logits = random.normal(size=(2, 7, 7, 3)).astype("float32")
    correlation = random.dirichlet(np.ones(9), (2, 9)).astype("float32")
    found = spread_logits({"mask_logits": ops.convert_to_tensor(logits), "correlation": correlation})
    expected = enlarge(spread_by_hand(logits, correlation, (3, 3)), (7, 7))
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)


def test_defaults_configuration_and_dtypes():
    layer = CorrelationHead()
    layer.build((None, None, None, 5))
    assert (layer.correlation.dim, layer.projection.filters, layer.projection.kernel_size) == (21, 256, 3)
    assert layer.dropout.rate == 0.1
    assert_config_round_trip(CorrelationHead(4, 16, 0.2, seed=3))
    half, features = head(dtype="mixed_float16")
    found = half(ops.cast(features, "float16"), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(array(found).sum(-1), 1, rtol=1e-5)
    assert not [v.path for v in half.variables if "float16" in str(v.dtype)]


def test_a_map_of_too_many_places_is_refused():
    layer, _ = head()
    with pytest.raises(ValueError, match=r"`features` must have at most 48 places a side, found \(2, 49\)"):
        layer(np.zeros((1, 2, 49, 5), "float32"))
    assert layer(np.zeros((1, 1, 48, 5), "float32")).shape[1] == 48
    encoder = tiny_encoder(stride=8)
    check_places(encoder, 48 * 8)
    with pytest.raises(ValueError, match="`image_size` must be at most 384, 48 places of 8 pixels, found 416"):
        check_places(encoder, 416)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "`dim` must be a whole number of at least 1, found 0"),
        ({"units": 0}, "`units` must be a whole number of at least 1, found 0"),
        ({"dropout": 1.0}, r"`dropout` must be within \[0, 1\), found 1.0"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        CorrelationHead(**arguments)
