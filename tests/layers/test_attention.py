"""Inter-task attention against loops that read Eq. 3-5 literally."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import InterTaskAttention
from tests.gradients import gradient
from tests.layers.compiled import compiled


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _convolve(x, kernel, bias):
    """3x3 convolution with zero padding of one map `(H, W, C)`."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    result = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            result[i, j] = np.tensordot(padded[i : i + 3, j : j + 3], kernel, 3) + bias
    return result


def _by_hand(layer, x_cls, x_seg):
    weights = {
        weight.path.rpartition(f"{layer.name}/")[2]: ops.convert_to_numpy(weight).astype("float64")
        for weight in layer.weights
    }
    if "projection/kernel" in weights:
        x_seg = x_seg @ weights["projection/kernel"]
    fused = _convolve(np.concatenate([x_cls, x_seg], axis=-1), weights["kernel"], weights["bias"])
    hidden = np.maximum(fused.mean(axis=(0, 1)) @ weights["squeeze/kernel"], 0)
    channel = _sigmoid(layer.slope * (hidden @ weights["excite/kernel"] + weights["excite/bias"]))
    x_m = x_cls * channel
    summary = np.stack([x_m.mean(axis=-1), x_m.max(axis=-1)], axis=-1)
    spatial = _sigmoid(layer.slope * _convolve(summary, weights["place/kernel"], weights["place/bias"]))
    return x_m * spatial, channel, spatial


def _layer(x_cls, x_seg, **options):
    layer = InterTaskAttention(**options)
    layer.build(x_cls.shape, x_seg.shape)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(0, 0.4, weight.shape) for weight in layer.weights])
    return layer


def _features(height=5, width=4, cls=8, seg=6):
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(2, height, width, channels)).astype("float32") for channels in (cls, seg))


@pytest.mark.parametrize(
    ("shape", "slope"),
    [((5, 4, 8, 8), 1), ((5, 4, 8, 6), 1), ((1, 1, 8, 8), 1), ((2, 1, 4, 3), 1), ((2, 3, 4, 3), 3.0)],
)
def test_equations_3_to_5(shape, slope):
    x_cls, x_seg = _features(*shape)
    layer = _layer(x_cls, x_seg, slope=slope)
    step = compiled(lambda a, b: (*layer(a, b, return_maps=True), layer(a, b)), [])
    *result, alone = (ops.convert_to_numpy(t) for t in step(ops.convert_to_tensor(x_cls), ops.convert_to_tensor(x_seg)))
    for n in range(2):
        for ours, expected in zip(result, _by_hand(layer, x_cls[n], x_seg[n]), strict=True):
            np.testing.assert_allclose(ours[n], expected, atol=1e-5)
    np.testing.assert_allclose(alone, result[0], atol=1e-6)


def test_ratio_sets_the_hidden_width():
    layer = _layer(*_features(cls=8, seg=8), ratio=2)
    assert layer.squeeze.units == 4
    assert layer.projection is None


def test_gates_are_nearly_open_before_training_and_every_weight_learns():
    x_cls, x_seg = _features()
    layer = InterTaskAttention(initial_gate=0.9)
    x_out, channel, spatial = map(ops.convert_to_numpy, layer(x_cls, x_seg, return_maps=True))
    np.testing.assert_allclose(channel, np.full((2, 8), 0.9), rtol=1e-6)
    np.testing.assert_allclose(spatial, np.full((2, 5, 4, 1), 0.9), rtol=1e-6)
    np.testing.assert_allclose(x_out, 0.81 * x_cls, rtol=1e-5)
    before = layer.get_weights()
    inputs = [keras.Input(x_cls.shape[1:]), keras.Input(x_seg.shape[1:])]
    model = keras.Model(inputs, layer(*inputs))
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    model.fit([x_cls, x_seg], np.ones_like(x_cls), batch_size=2, epochs=3, verbose=0)
    for old, weight in zip(before, layer.weights, strict=True):
        assert np.abs(old - ops.convert_to_numpy(weight)).max() > 0, weight.path


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_random_kernels_start_around_the_same_gate(slope):
    keras.utils.set_random_seed(0)
    x_cls, x_seg = _features(cls=64)
    layer = InterTaskAttention(initial_gate=0.8, gate_kernel="glorot_uniform", slope=slope)
    _, channel, spatial = map(ops.convert_to_numpy, layer(x_cls, x_seg, return_maps=True))
    for gate in (channel, spatial):
        assert gate.std() > 0.005
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 0)
    for bias in (layer.excite.bias, layer.place.bias):
        np.testing.assert_allclose(ops.convert_to_numpy(bias), np.log(4) / slope, rtol=1e-6)


@pytest.mark.parametrize(("slope", "gate"), [(1.0, 0.95), (1.0, 0.8), (5.0, 0.95)])
def test_with_zero_kernels_the_slope_leaves_the_start_and_multiplies_what_a_weight_moves(slope, gate):
    x_cls, x_seg = _features()
    layer = InterTaskAttention(initial_gate=gate, slope=slope)
    _, channel, spatial = map(ops.convert_to_numpy, layer(x_cls, x_seg, return_maps=True))
    np.testing.assert_allclose(channel, gate, rtol=1e-6)
    np.testing.assert_allclose(spatial, gate, rtol=1e-6)
    start = ops.convert_to_numpy(layer.excite.bias)
    layer.excite.bias.assign(start + 1e-3)
    moved = ops.convert_to_numpy(layer(x_cls, x_seg, return_maps=True)[1]) - channel
    np.testing.assert_allclose(moved, 1e-3 * slope * gate * (1 - gate), rtol=1e-2)


def test_gradient_reaches_both_inputs_and_is_that_of_the_equations():
    x_cls, x_seg = _features(3, 3, 4, 4)
    layer = _layer(x_cls, x_seg)

    def total(a, b):
        return sum((_by_hand(layer, a[n], b[n])[0] ** 2).sum() for n in range(2))

    gradients = (
        gradient(lambda x: ops.sum(ops.square(layer(x, ops.convert_to_tensor(x_seg)))), x_cls),
        gradient(lambda x: ops.sum(ops.square(layer(ops.convert_to_tensor(x_cls), x))), x_seg),
    )
    for which, ours in enumerate(gradients):
        for index in [(0, 0, 0, 0), (0, 1, 1, 2), (1, 2, 0, 3)]:
            inputs = [x_cls.astype("float64"), x_seg.astype("float64")]
            values = []
            for sign in (1, -1):
                moved = [array.copy() for array in inputs]
                moved[which][index] += sign * 1e-5
                values.append(total(*moved))
            np.testing.assert_allclose(ours[index], (values[0] - values[1]) / 2e-5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_stays_close(policy):
    x_cls, x_seg = _features(8, 8, 8, 6)
    exact = _layer(x_cls, x_seg)
    mixed = InterTaskAttention(dtype=policy)
    mixed.build(x_cls.shape, x_seg.shape)
    mixed.set_weights(exact.get_weights())
    result = mixed(x_cls, x_seg)
    assert keras.backend.standardize_dtype(result.dtype) == mixed.compute_dtype
    expected = ops.convert_to_numpy(exact(x_cls, x_seg))
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(result, "float32")), expected, atol=0.05)


def test_config_and_file_round_trip_with_maps_of_any_size(tmp_path):
    inputs = [keras.Input((None, None, 8)), keras.Input((None, None, 6))]
    model = keras.Model(inputs, InterTaskAttention(ratio=2, gate_kernel="glorot_uniform", slope=2.0)(*inputs))
    model.save(tmp_path / "attention.keras")
    loaded = keras.saving.load_model(tmp_path / "attention.keras")
    features = list(_features())
    np.testing.assert_allclose(loaded.predict(features, verbose=0), model.predict(features, verbose=0), atol=1e-6)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="ratio"):
        InterTaskAttention(ratio=0)
    with pytest.raises(ValueError, match="initial_gate"):
        InterTaskAttention(initial_gate=1.0)
    with pytest.raises(ValueError, match="`gate_kernel` must be one of 'zeros', 'glorot_uniform', found 'ones'"):
        InterTaskAttention(gate_kernel="ones")
    with pytest.raises(ValueError, match="`slope` must be positive, found 0"):
        InterTaskAttention(slope=0)
    with pytest.raises(ValueError, match="height is 4 and 8"):
        InterTaskAttention().build((None, 4, 8, 3), (None, 8, 8, 3))
