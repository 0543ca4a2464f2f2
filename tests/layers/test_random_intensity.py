"""Random intensities: what is drawn, in which order it applies, and the stream that can be saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_semimed.layers import INTENSITIES, IntensityDraw, RandomIntensity, intensity_strength
from tests.layers.compiled import compiled
from tests.layers.test_intensity import by_hand, example


def numpy(values):
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def drawing(layer, count):
    """Returns a function that draws for so many images, compiled once."""
    step = compiled(lambda images: layer.draw(ops.shape(images)[0]), layer.variables)
    return lambda: IntensityDraw(*numpy(step(ops.zeros((count, 1)))))


def called(layer):
    """Returns the layer, compiled once, from arrays to an array; the fields of a draw come one by one."""
    step = compiled(
        lambda images, inside, *draw: layer(images, inside, IntensityDraw(*draw) if draw else None), layer.variables
    )
    return lambda *arrays: numpy(step(*map(ops.convert_to_tensor, arrays)))


def random_draw(count, columns):
    random = np.random.default_rng(0)
    return IntensityDraw(
        random.integers(1, columns + 1, count).astype("int32"),
        random.integers(0, len(INTENSITIES), (count, columns)).astype("int32"),
        random.uniform(size=(count, columns)).astype("float32"),
        random.choice([-1.0, 1.0], (count, columns)).astype("float32"),
    )


def chain_by_hand(image, inside, count, operations, uniform, signs):
    for place, number, sign in zip(operations[:count], uniform, signs, strict=False):
        name = INTENSITIES[place]
        strength = ops.convert_to_numpy(intensity_strength(name, ops.convert_to_tensor(number[None])))[0]
        image = by_hand(image, name, sign * strength if name == "hue" else strength, inside)
    return image


def test_the_first_operations_apply_one_after_the_other():
    count, columns = 24, 3
    images, inside = example(count=count, size=(24, 30))
    draw = random_draw(count, columns)
    found = called(RandomIntensity())(images, inside, *draw)
    assert found.dtype == np.float32
    for n in range(count):
        expected = chain_by_hand(images[n], inside[n], *(values[n] for values in draw))
        # A level beside a threshold may fall on its other side, and move others with it in a table.
        assert np.isclose(found[n], expected, atol=0.02).mean() > 0.998, [INTENSITIES[i] for i in draw.operations[n]]


def test_hue_turns_either_way_and_later_columns_wait_for_their_count():
    images, inside = np.full((3, 2, 2, 3), [200.0, 40.0, 40.0], "float32"), np.ones((3, 2, 2), "float32")
    hue, solarize = INTENSITIES.index("hue"), INTENSITIES.index("solarize")
    draw = IntensityDraw(
        np.array([1, 1, 2], "int32"),
        np.array([[hue, solarize]] * 3, "int32"),
        np.full((3, 2), 2 / 3, "float32"),  # a third of a turn; threshold 86
        np.array([[1, 1], [-1, 1], [1, 1]], "float32"),
    )
    found = numpy(RandomIntensity()(ops.convert_to_tensor(images), inside, draw))
    np.testing.assert_allclose(found[:, 0, 0], [[40, 200, 40], [40, 40, 200], [40, 55, 40]], atol=1e-3)


def test_what_is_drawn():
    layer = RandomIntensity(3, seed=1)
    draw = drawing(layer, 6000)()
    assert [values.dtype for values in draw] == ["int32", "int32", "float32", "float32"]
    assert [values.shape for values in draw] == [(6000,), (6000, 3), (6000, 3), (6000, 3)]
    assert stats.chisquare(np.bincount(draw.counts)[1:]).pvalue > 0.001 and set(draw.counts) == {1, 2, 3}
    for column in range(3):
        assert stats.chisquare(np.bincount(draw.operations[:, column], minlength=11)).pvalue > 0.001
    assert stats.kstest(draw.uniform.ravel(), "uniform").pvalue > 0.001
    assert set(draw.signs.ravel()) == {1.0, -1.0} and abs(draw.signs.mean()) < 0.03
    # With replacement, and nothing depends on anything else.
    repeated = (draw.operations[:, 0] == draw.operations[:, 1]).mean()
    assert abs(repeated - 1 / 11) < 0.015
    columns = [draw.counts, *draw.operations.T, *draw.uniform.T, *draw.signs.T]
    assert np.abs(np.corrcoef(columns)[np.triu_indices(10, 1)]).max() < 0.06


def test_the_largest_random_number_is_the_last_choice(monkeypatch):
    monkeypatch.setattr(keras.random, "uniform", lambda shape, **options: ops.full(shape, 1 - 2**-24, "float32"))
    draw = numpy(RandomIntensity(5).draw(2))
    assert (draw.counts == 5).all() and (draw.operations == 10).all() and (draw.signs == -1).all()


def test_draws_itself_what_draw_would_and_treats_none_as_all_inside():
    images, _ = example()
    layer, same = RandomIntensity(1, seed=3), RandomIntensity(1, seed=3)
    draw = same.draw(len(images))
    found, expected = layer(ops.convert_to_tensor(images)), same(ops.convert_to_tensor(images), None, draw)
    np.testing.assert_array_equal(numpy(found), numpy(expected))
    step, inside = called(layer), np.ones(images.shape[:3], "float32")
    for _ in range(3):
        expected = numpy(same(ops.convert_to_tensor(images)))
        np.testing.assert_allclose(step(images, inside), expected, atol=2e-2)
    assert numpy(layer.random_state.value)[1] == 4


def test_same_seed_same_draws_and_the_stream_goes_on_after_loading(tmp_path):
    def draws(layer, times=1):
        draw = drawing(layer, 8)
        return np.stack([np.concatenate([np.ravel(values) for values in draw()]) for _ in range(times)])

    first = draws(RandomIntensity(seed=5), 3)
    np.testing.assert_array_equal(first, draws(RandomIntensity(seed=5), 3))
    assert (first[0] != first[1]).any() and (first[0] != draws(RandomIntensity(seed=6))).any()

    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, RandomIntensity(operations=1, seed=5, name="intensity")(inputs))
    images = example(size=(6, 6))[0]
    model.predict(images, verbose=0)
    model.save(tmp_path / "intensity.keras")
    saved = model.get_layer("intensity")
    loaded = keras.saving.load_model(tmp_path / "intensity.keras").get_layer("intensity")
    assert loaded.get_config() == saved.get_config() and (loaded.operations, loaded.seed) == (1, 5)
    assert numpy(loaded.random_state.value)[1] > 0 and len(saved.variables) == 1
    np.testing.assert_array_equal(draws(loaded), draws(saved))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_float32_under_any_policy(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        images = ops.convert_to_tensor(example()[0].astype("uint8"))
        layer, other = RandomIntensity(seed=2, dtype=policy), RandomIntensity(seed=2)
        found, expected = layer(images), other(ops.cast(images, "float32"))
    finally:
        keras.config.set_dtype_policy(previous)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(numpy(found), numpy(expected))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has batches of unknown size")
def test_batches_of_unknown_size():
    import tensorflow as tf

    layer = RandomIntensity()
    images, inside = example(count=11)
    draw = IntensityDraw(
        np.full(11, 1, "int32"), np.arange(11, dtype="int32")[:, None], *np.full((2, 11, 1), 0.5, "float32")
    )
    signature = [tf.TensorSpec((None, *values.shape[1:]), values.dtype) for values in (images, inside, *draw)]
    step = tf.function(lambda x, v, *draw: layer(x, v, IntensityDraw(*draw)), input_signature=signature)
    expected = layer(images, inside, IntensityDraw(*map(ops.convert_to_tensor, draw)))
    np.testing.assert_allclose(step(images, inside, *draw).numpy(), expected, atol=1e-3)
    assert step.get_concrete_function().output_shapes.as_list() == [None, *images.shape[1:]]


@pytest.mark.parametrize("argument", [{"operations": 0}, {"operations": 1.5}, {"seed": -1}, {"seed": None}])
def test_wrong_arguments_are_named(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        RandomIntensity(**argument)
