"""DCNet's directional consistency against an independent NumPy reading."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import DirectionalConsistency
from tests.gradients import gradient
from tests.losses.helpers import assert_config_round_trip, compiled, finite_difference, softmax, value


def by_hand(z1, z2, g1, g2, inside=None, temperature=1.0, stopped=None):
    """`stopped`: logits of the guides, where they are not those of the guided."""
    s1, s2 = (softmax(np.asarray(z, "float64") / temperature) for z in (z1, z2))
    t1, t2 = (s1, s2) if stopped is None else (softmax(z.astype("float64") / temperature) for z in stopped)
    total, pixels = 0.0, 0.0
    for pixel in np.ndindex(*s1.shape[:-1]):
        here = 1.0 if inside is None else inside[pixel]
        for k in range(s1.shape[-1]):
            forward = g1[pixel][k] * (t1[pixel][k] - s2[pixel][k]) ** 2
            total += here * (forward + g2[pixel][k] * (t2[pixel][k] - s1[pixel][k]) ** 2) / s1.shape[-1]
        pixels += here
    return total / max(pixels, 1)


def example(classes=3, seed=0):
    random = np.random.default_rng(seed)
    z1, z2 = random.normal(0, 2, (2, 2, 3, 4, classes)).astype("float32")
    drawn = random.uniform(size=z1.shape)
    g1, g2 = (drawn < 0.4).astype("float32"), (drawn > 0.6).astype("float32")
    return z1, z2, g1, g2, (random.uniform(size=z1.shape[:-1]) < 0.7).astype("float32")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("classes", "temperature"), [(2, 1.0), (4, 0.5), (3, 2.0)])
def test_value_and_slopes(classes, temperature, masked):
    z1, z2, g1, g2, inside = example(classes, classes)
    inside = inside if masked else None
    loss, known = DirectionalConsistency(temperature), {"inside": inside, "temperature": temperature}
    np.testing.assert_allclose(value(loss(z1, z2, g1, g2, inside)), by_hand(z1, z2, g1, g2, **known), rtol=1e-5)
    first = gradient(lambda z: loss(z, z2, g1, g2, inside), z1)
    second = gradient(lambda z: loss(z1, z, g1, g2, inside), z2)
    stopped = (z1, z2)
    expected = finite_difference(lambda z: by_hand(z, z2, g1, g2, **known, stopped=stopped), z1)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    expected = finite_difference(lambda z: by_hand(z1, z, g1, g2, **known, stopped=stopped), z2)
    np.testing.assert_allclose(second, expected, atol=1e-6)
    assert min(np.abs(first).max(), np.abs(second).max()) > 1e-3
    np.testing.assert_array_equal(gradient(lambda g: loss(z1, z2, g, g, inside), g1), 0)


def test_the_numbers_of_the_specification():
    z1, z2 = (np.log(np.float32([[[p]]])) for p in ((0.6, 0.4), (0.7, 0.3)))
    g1, g2 = np.float32([[[[0, 1]]]]), np.float32([[[[1, 0]]]])  # where each is the larger one
    loss = DirectionalConsistency()
    np.testing.assert_allclose(value(loss(z1, z2, g1, g2)), 0.01, rtol=1e-4)
    assert gradient(lambda z: loss(z, z2, g1, g2), z1)[0, 0, 0, 0] < 0  # towards 0.7
    assert gradient(lambda z: loss(z1, z, g1, g2), z2)[0, 0, 0, 1] < 0  # towards 0.4
    nobody = np.zeros_like(g2)  # class 0 is consistent
    np.testing.assert_allclose(value(loss(z1, z2, g1, nobody)), 0.005, rtol=1e-4)
    np.testing.assert_array_equal(gradient(lambda z: loss(z, z2, g1, nobody), z1), 0)
    assert gradient(lambda z: loss(z1, z, g1, nobody), z2).any()


def test_nothing_inside_nobody_guided_and_extreme_logits():
    z1, z2, g1, g2, inside = example()
    loss = DirectionalConsistency()
    for arguments in ((g1, g2, 0 * inside), (0 * g1, 0 * g2, inside)):
        assert value(loss(z1, z2, *arguments)) == 0
        np.testing.assert_array_equal(gradient(lambda z, a=arguments: loss(z, z2, *a), z1), 0)
    assert np.isfinite(gradient(lambda z: loss(z, -1e4 * z2, g1, g2), 1e4 * z1)).all()


def test_half_precision_is_computed_in_float32():
    z1, z2, g1, g2, inside = example()
    halves = [ops.cast(z, "bfloat16") for z in (z1, z2)]
    rounded = [ops.convert_to_numpy(ops.cast(z, "float32")) for z in halves]
    found = value(DirectionalConsistency()(*halves, g1, g2, inside))
    np.testing.assert_allclose(found, by_hand(*rounded, g1, g2, inside), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled(dynamic_batch):
    arrays = example()
    found = compiled(DirectionalConsistency(), *arrays, dynamic_batch=dynamic_batch)
    np.testing.assert_allclose(value(found), by_hand(*arrays), rtol=1e-5)


def test_config_round_trip_and_errors():
    assert_config_round_trip(DirectionalConsistency(0.5, name="d"))
    for wrong in (0, "a", float("inf"), float("nan"), True, None):
        with pytest.raises(ValueError, match=f"`temperature` must be a finite number above 0, found {wrong!r}"):
            DirectionalConsistency(wrong)
    z = np.zeros((2, 3, 3, 4), "float32")
    for name, place in (("logits_2", 1), ("guide_1", 2), ("guide_2", 3)):
        maps = [z] * 4
        maps[place] = z[..., :2]
        with pytest.raises(ValueError, match=f"`{name}` must be of the shape of `logits_1` .*, found"):
            DirectionalConsistency()(*maps)
