"""Bidirectional displacement: which patches change places, and what moves with them."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import BidirectionalDisplacement, Moves
from tests.gradients import gradient
from tests.layers.compiled import compiled
from tests.losses.helpers import softmax

# Four pixels, each a patch: the distributions of the specification.
WEAK = np.log([[(0.9, 0.1), (0.4, 0.6)], [(0.2, 0.8), (0.7, 0.3)]]).astype("float32")[None]
STRONG = np.log([[(0.45, 0.55), (0.95, 0.05)], [(0.15, 0.85), (0.75, 0.25)]]).astype("float32")[None]


def divergence(p, q):
    """KL(p || q)."""
    return float(np.sum(p * (np.log(p) - np.log(q))))


def reversed_divergence(p, q):
    return divergence(q, p)


def mean_softmax(pixels):
    return softmax(pixels).mean(0)


def softmax_of_mean(pixels):
    return softmax(pixels.mean(0))


def patches_of(values, grid):
    """The slices of the patches, row by row."""
    side = values.shape[0] // grid
    return [
        np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        for row in range(grid)
        for column in range(grid)
    ]


def moves_by_hand(kind, weak, strong, grid, candidates, kl=divergence, distribution=softmax_of_mean):
    """Targets and sources of each image: weak target, strong source, strong target, weak source."""
    found = []
    for views in zip(np.asarray(weak, "float64"), np.asarray(strong, "float64"), strict=True):
        cells = [[view[place].reshape(-1, view.shape[-1]) for place in patches_of(view, grid)] for view in views]
        confidence = [[softmax(pixels).max(-1).mean() for pixels in view] for view in cells]
        kinds = [[distribution(pixels) for pixels in view] for view in cells]
        low, high = ([int(pick(view)) for view in confidence] for pick in (np.argmin, np.argmax))
        if kind == "inverse":
            found.append((high[0], low[1], high[1], low[0]))
            continue
        best = [sorted(range(grid**2), key=lambda place, view=view: -view[place])[:candidates] for view in confidence]
        source = [
            min(best[1 - view], key=lambda place, view=view: kl(kinds[view][low[view]], kinds[1 - view][place]))
            for view in (0, 1)
        ]
        found.append((low[0], source[0], low[1], source[1]))
    return np.array(found)


def displaced_by_hand(weak, strong, places, drawn, grid):
    """Both moves, image by image, the second one from the changed weak view."""
    weak, strong = weak.copy(), strong.copy()
    for image, (weak_target, strong_source, strong_target, weak_source) in enumerate(places):
        if drawn[image]:
            cells = patches_of(weak[image], grid)
            weak[image][cells[weak_target]] = strong[image][cells[strong_source]]
            strong[image][cells[strong_target]] = weak[image][cells[weak_source]]
    return weak, strong


def moves_of(layer, weak, strong, drawn=None):
    moves = layer.moves(*(ops.convert_to_tensor(values) for values in (weak, strong)), drawn)
    return np.stack([ops.convert_to_numpy(values) for values in moves[:4]], -1), ops.convert_to_numpy(moves.drawn)


def displaced(layer, weak, strong, places, drawn):
    moves = Moves(*(ops.convert_to_tensor(values.astype("int32")) for values in places.T), ops.convert_to_tensor(drawn))
    found = layer.displace(ops.convert_to_tensor(weak), ops.convert_to_tensor(strong), moves)
    return [ops.convert_to_numpy(values) for values in found]


def logits_of(seed, count, side, classes):
    """Patches of different confidence, and pixels of different confidence in them."""
    random = np.random.default_rng(seed)
    scale = random.uniform(0.2, 4, (2, count, side, side, 1))
    return (scale * random.normal(0, 1, (2, count, side, side, classes))).astype("float32")


def test_the_numbers_of_the_specification():
    p, q = (np.exp(logits.astype("float64")).reshape(4, 2) for logits in (WEAK, STRONG))
    np.testing.assert_allclose([divergence(q[0], p[j]) for j in (0, 2)], [0.625695, 0.158837], atol=1e-6)
    np.testing.assert_allclose([divergence(p[1], q[j]) for j in (1, 2)], [1.144945, 0.183348], atol=1e-6)
    weak = np.array([[[1, 2], [3, 4]]], "int32")
    expected = {
        ("reliable", 1): ([1, 2, 0, 2], [1, 30, 3, 4], [3, 20, 30, 40]),
        ("inverse", 1): ([0, 0, 1, 1], [10, 2, 3, 4], [10, 2, 30, 40]),
        ("inverse", 0): ([0, 0, 1, 1], [1, 2, 3, 4], [10, 20, 30, 40]),
    }
    for (kind, drawn), (places, *views) in expected.items():
        layer = BidirectionalDisplacement(kind, grid=2, candidates=2)
        found, taken = moves_of(layer, WEAK, STRONG, np.array([drawn], "float32"))
        np.testing.assert_array_equal(found, [places])
        assert taken == [drawn]
        for values, wanted in zip(displaced(layer, weak, 10 * weak, found, taken), views, strict=True):
            np.testing.assert_array_equal(values.ravel(), wanted)


def test_the_second_move_reads_what_the_first_one_changed():
    weak = np.log([[(0.9, 0.1), (0.45, 0.55)], [(0.2, 0.8), (0.7, 0.3)]]).astype("float32")[None]
    strong = np.log([[(0.52, 0.48), (0.42, 0.58)], [(0.15, 0.85), (0.75, 0.25)]]).astype("float32")[None]
    layer = BidirectionalDisplacement(grid=2, candidates=4)
    places, drawn = moves_of(layer, weak, strong)
    np.testing.assert_array_equal(places, [[1, 1, 0, 1]])
    first, second = displaced(layer, np.array([[[1, 2], [3, 4]]]), np.array([[[10, 20], [30, 40]]]), places, drawn)
    assert first.ravel().tolist() == [1, 20, 3, 4] and second.ravel().tolist() == [20, 20, 30, 40]


@pytest.mark.parametrize(("grid", "candidates", "side"), [(2, 3, 6), (4, 4, 8), (3, 9, 6), (3, 1, 3)])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", ["reliable", "inverse"])
def test_moves_by_hand(kind, classes, grid, candidates, side):
    weak, strong = logits_of(classes, 8, side, classes)
    found, drawn = moves_of(BidirectionalDisplacement(kind, grid, candidates), weak, strong, np.arange(8) % 2)
    assert found.dtype == np.int32 and drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, np.arange(8) % 2)
    np.testing.assert_array_equal(found, moves_by_hand(kind, weak, strong, grid, candidates))


def test_other_readings_of_the_similarity_choose_otherwise():
    """What `test_moves_by_hand` can tell apart: the direction of the divergence, and the mean of softmaxes."""
    weak, strong = logits_of(3, 8, 8, 3)
    right = moves_by_hand("reliable", weak, strong, 4, 4)
    for other in ({"kl": reversed_divergence}, {"distribution": mean_softmax}):
        assert (moves_by_hand("reliable", weak, strong, 4, 4, **other) != right).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = [ops.cast(values, dtype) for values in logits_of(5, 4, 8, 3)]
    layer = BidirectionalDisplacement(dtype="mixed_float16")
    rounded = [ops.convert_to_numpy(ops.cast(values, "float32")) for values in logits]
    expected = moves_by_hand("reliable", *rounded, 4, 4)
    np.testing.assert_array_equal(moves_of(layer, *logits)[0], expected)


@pytest.mark.parametrize("kind", ["reliable", "inverse"])
def test_equal_patches_count_from_the_first_one_on(kind):
    for level in (0.0, 1e4):  # as unsure as can be, and as sure
        logits = np.zeros((2, 8, 8, 3), "float32")
        logits[..., 1] = level
        np.testing.assert_array_equal(moves_of(BidirectionalDisplacement(kind), logits, logits)[0], 0)
    logits[1, :4] = 0  # the upper half is unsure, the lower one sure
    high, low = (8, 0) if kind == "inverse" else (0, 8)
    expected = [high, 0 if kind == "inverse" else low] * 2
    np.testing.assert_array_equal(moves_of(BidirectionalDisplacement(kind), logits, logits)[0], [[0] * 4, expected])


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize(("grid", "side"), [(1, 4), (2, 6), (4, 8), (3, 3)])
def test_displacing_by_hand(grid, side, channels, dtype):
    random = np.random.default_rng(grid)
    weak, strong = random.integers(0, 2 if dtype == "bool" else 256, (2, 7, side, side, *channels)).astype(dtype)
    places = random.integers(0, grid**2, (7, 4))
    places[0, 3] = places[0, 0]  # the second source is what the first move changed
    drawn = np.array([1, 0, 1, 1, 0, 1, 1], "float32")
    found = displaced(BidirectionalDisplacement(grid=grid, candidates=1), weak, strong, places, drawn)
    for values, expected in zip(found, displaced_by_hand(weak, strong, places, drawn, grid), strict=True):
        assert values.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(values, expected)


def test_compiled_as_by_hand():
    weak, strong = logits_of(9, 3, 8, 3)
    layer = BidirectionalDisplacement("inverse", probability=1.0)

    def step(first, second):
        return layer.displace(first, second, layer.moves(first, second))

    found = compiled(step, layer.variables)(ops.convert_to_tensor(weak), ops.convert_to_tensor(strong))
    places = moves_by_hand("inverse", weak, strong, 4, 4)
    for values, expected in zip(found, displaced_by_hand(weak, strong, places, np.ones(3), 4), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(values), expected)


def test_moves_may_be_numpy_arrays():
    weak, strong = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4))
    places = np.array([[0, 3, 2, 0], [1, 1, 1, 2], [3, 0, 3, 1]])
    found = BidirectionalDisplacement(grid=2).displace(weak, strong, Moves(*places.T, np.array([1, 0, 1])))
    for values, expected in zip(found, displaced_by_hand(weak, strong, places, [1, 0, 1], 2), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(values), expected)


def test_nothing_carries_a_gradient():
    weak, strong = logits_of(2, 2, 4, 2)
    layer = BidirectionalDisplacement(grid=2)

    def value(x):
        moves = layer.moves(x, x)
        return sum(ops.sum(part) for part in layer.displace(x, strong, moves)) + ops.sum(
            ops.cast(moves.weak_source, "float32")
        )

    assert not gradient(value, weak).any()


def test_a_share_of_the_images_is_drawn_and_the_moves_do_not_depend_on_it():
    layer = BidirectionalDisplacement("inverse", grid=2, probability=0.3)
    draw = compiled(lambda x: layer.draw(ops.shape(x)[0]), layer.variables)
    drawn = ops.convert_to_numpy(draw(ops.zeros((4000,))))
    assert drawn.dtype == np.float32 and set(np.unique(drawn)) == {0, 1}
    assert abs(drawn.mean() - 0.3) < 0.03
    for probability, share in ((0.0, 0), (1.0, 1)):
        assert (
            ops.convert_to_numpy(BidirectionalDisplacement("inverse", probability=probability).draw(50)) == share
        ).all()
    weak, strong = logits_of(1, 40, 4, 3)
    places, taken = moves_of(layer, weak, strong)
    assert 0 < taken.sum() < 40
    np.testing.assert_array_equal(places, moves_of(layer, weak, strong, np.zeros(40))[0])


def test_the_reliable_displacement_takes_all_images_and_draws_nothing():
    layer = BidirectionalDisplacement(probability=0.0)
    before = layer.get_weights()
    weak, strong = logits_of(1, 3, 8, 2)
    np.testing.assert_array_equal(moves_of(layer, weak, strong)[1], 1)
    np.testing.assert_array_equal(layer.get_weights(), before)


def test_same_seed_same_draws_and_the_stream_goes_on_after_loading():
    def draws(layer, times):
        draw = compiled(lambda x: layer.draw(ops.shape(x)[0]), layer.variables)
        return np.stack([ops.convert_to_numpy(draw(ops.zeros((30,)))) for _ in range(times)])

    layer = BidirectionalDisplacement("inverse", seed=3)
    first = draws(layer, 3)
    np.testing.assert_array_equal(first, draws(BidirectionalDisplacement("inverse", seed=3), 3))
    assert (first[0] != first[1]).any() and (first[0] != draws(BidirectionalDisplacement("inverse", seed=4), 1)).any()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(draws(again, 2), draws(layer, 2))


def test_arguments_come_back_from_the_configuration():
    layer = BidirectionalDisplacement("inverse", 6, 5, 0.25, seed=7, name="moved")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    assert (again.kind, again.grid, again.candidates, again.probability, again.seed) == ("inverse", 6, 5, 0.25, 7)
    default = BidirectionalDisplacement()
    assert (default.kind, default.grid, default.candidates, default.probability) == ("reliable", 4, 4, 0.5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has batches of unknown size")
@pytest.mark.parametrize("kind", ["reliable", "inverse"])
def test_batches_of_unknown_size(kind):
    import tensorflow as tf

    layer = BidirectionalDisplacement(kind, probability=1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), "float32")] * 2)
    def step(weak, strong):
        return layer.displace(weak, strong, layer.moves(weak, strong))

    weak, strong = logits_of(4, 5, 8, 3)
    expected = displaced_by_hand(weak, strong, moves_by_hand(kind, weak, strong, 4, 4), np.ones(5), 4)
    for values, wanted in zip(step(weak, strong), expected, strict=True):
        np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "reliabel"}, "`kind` must be one of .* found 'reliabel'"),
        ({"grid": 0}, "`grid` must be .*found 0"),
        ({"grid": 2.0}, "`grid` must be .*found 2.0"),
        ({"candidates": 0}, "`candidates` must be .*found 0"),
        ({"candidates": 17}, "`candidates` must be at most `grid` squared, 16, found 17 with a `grid` of 4"),
        ({"grid": 1}, "`candidates` must be at most `grid` squared, 1, found 4 with a `grid` of 1"),
        ({"probability": 1.5}, r"`probability` must be within \[0, 1\], found 1.5"),
        ({"probability": None}, "`probability` must be .*found None"),
        ({"seed": -1}, "`seed` must be .*found -1"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        BidirectionalDisplacement(**wrong)


def test_one_patch_an_image_changes_the_views_of_the_labelled_images():
    """The inverse displacement looks at no candidates, so that their default does not bound its grid."""
    layer = BidirectionalDisplacement("inverse", grid=1)
    weak, strong = logits_of(0, 3, 4, 2)
    drawn = np.float32([1, 0, 1])
    found = displaced(layer, weak, strong, *moves_of(layer, weak, strong, drawn))
    np.testing.assert_array_equal(found[0], np.where(drawn[:, None, None, None] > 0, strong, weak))
    np.testing.assert_array_equal(found[1], strong)


def test_sizes_that_are_not_known_pass_for_the_batch_alone():
    layer, known = BidirectionalDisplacement(), keras.KerasTensor((2, 8, 8, 3))
    layer._check("", keras.KerasTensor((None, 8, 8, 3)), known, ranks=(4,))
    with pytest.raises(ValueError, match=r"`strong` must be of known sizes .*, found \(2, 8, None, 3\)"):
        layer._check("", known, keras.KerasTensor((2, 8, None, 3)), ranks=(4,))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((2, 10, 10, 3), (2, 10, 10, 3), "`grid` must divide the sides, 10 and 10 pixels, found 4"),
        ((2, 8, 8), (2, 8, 8), r"`logits_weak` must be \(N, S, S, K\), found \(2, 8, 8\)"),
        ((2, 8, 8, 3), (2, 8, 8, 2), r"strong` must have the shape of `.*weak`, \(2, 8, 8, 3\), found \(2, 8, 8, 2\)"),
        ((2, 8, 8, 3), (1, 8, 8, 3), r"strong` must have the shape of `.*weak`, \(2, 8, 8, 3\), found \(1, 8, 8, 3\)"),
    ],
)
def test_wrong_shapes_are_named(first, second, message):
    layer = BidirectionalDisplacement()
    with pytest.raises(ValueError, match=message):
        layer.moves(np.zeros(first, "float32"), np.zeros(second, "float32"))
    moves = layer.moves(*np.zeros((2, 2, 8, 8, 2), "float32"))
    if len(first) == 3:
        first, second, message = first[:2], second[:2], r"`weak` must be \(N, S, S\) or \(N, S, S, K\), found \(2, 8\)"
    with pytest.raises(ValueError, match=message):
        layer.displace(np.zeros(first, "float32"), np.zeros(second, "float32"), moves)
