from __future__ import annotations

import functools
import json
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import LowContrastLoss, LowContrastMaps
from tests.gradients import gradient
from tests.losses import low_contrast_oracle as oracle
from tests.losses.helpers import assert_config_round_trip, compiled, value

# Closer calls than this are ties to float32, which may then select another pixel than float64.
TIE = 1e-6


def make_batch(source, target, num_classes, seed=0, labeled=1, unlabeled=2, depth=16):
    """Round lesions, an ignored margin, blocks of filtered pseudo-labels, features that lean to one side."""
    rng = np.random.default_rng(seed)
    (height, width), half = target, {}
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    for name, images in (("labeled", labeled), ("unlabeled", unlabeled)):
        masks = np.zeros((images, height, width), "int32")
        for image in masks:
            for c in range(1, num_classes):
                centre, radius = rng.uniform(0.25, 0.75, 2) * target, rng.uniform(0.15, 0.3) * height
                image[np.hypot(y - centre[0], x - centre[1]) < radius] = c
        features = rng.normal(size=(images, *source, depth)) + 0.5
        half[name] = features.astype("float32"), masks
    half["labeled"][1][:, : height // 8] = 255
    half["unlabeled"][1][:, :, -2:] = 255
    kept = rng.random((unlabeled, height // 4 + 1, width // 4 + 1)) > 0.2
    kept = kept.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width].astype("float32")
    return *half["labeled"], *half["unlabeled"], kept


class Result(NamedTuple):
    value: float
    slope: np.ndarray  # by all features, labelled ones first
    maps: LowContrastMaps


@functools.cache
def jitted(config):
    """One compilation on JAX for all tests of one configuration and one size."""
    import jax

    loss = LowContrastLoss(**json.loads(config))

    def run(features, masks, pseudo_masks, kept):
        maps = loss.maps(features[: len(masks)], masks, features[len(masks) :], pseudo_masks, kept)
        return loss.contrast(maps), maps

    return jax.jit(jax.value_and_grad(run, has_aux=True))


def evaluate(loss, batch):
    labeled, masks, unlabeled, pseudo_masks, kept = batch
    features, split = np.concatenate([labeled, unlabeled]), len(labeled)
    if keras.backend.backend() == "jax":
        (result, maps), slope = jitted(json.dumps(loss.get_config()))(features, masks, pseudo_masks, kept)
    else:
        maps = loss.maps(*batch)
        result = loss.contrast(maps)
        slope = gradient(lambda x: loss(x[:split], masks, x[split:], pseudo_masks, kept), features)
    return Result(value(result), np.asarray(slope), LowContrastMaps(*map(ops.convert_to_numpy, maps)))


def selected(mask):
    return set(np.flatnonzero(mask).tolist())


def assert_slope(slope, loss, batch, chosen, entries=20, rtol=1e-5):
    """Compares single entries with central differences of the oracle on fixed selections."""
    features, split = np.concatenate([batch[0], batch[2]]).astype("float64"), len(batch[0])
    rng, step, scale = np.random.default_rng(1), 1e-5, float(np.abs(slope).max())
    assert slope.shape == features.shape and scale > 0
    for _ in range(entries):
        index = tuple(rng.integers(n) for n in features.shape)
        values = []
        for sign in (1, -1):
            moved = features.copy()
            moved[index] += sign * step
            moved_batch = (moved[:split], batch[1], moved[split:], *batch[3:])
            values.append(oracle.loss(moved_batch, chosen, loss.num_classes, loss.temperature))
        assert slope[index] == pytest.approx((values[0] - values[1]) / (2 * step), rel=rtol, abs=rtol * scale)


CASES = [
    ((8, 8), (32, 32), 2, 0),
    ((3, 4), (24, 32), 3, 2),
    ((5, 6), (33, 41), 3, 0),
    ((6, 5), (41, 33), 2, 0),
]


@pytest.mark.parametrize(("source", "target", "num_classes", "seed"), CASES)
def test_equals_the_full_resolution_form(source, target, num_classes, seed):
    batch = make_batch(source, target, num_classes, seed)
    expected = oracle.select(batch, num_classes, k=0.3, neighbours=64)
    assert expected.gap > TIE and len(expected.inter_class) > 100 and len(expected.boundary) > 50
    loss = LowContrastLoss(num_classes=num_classes)
    result, slope, maps = evaluate(loss, batch)
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary_pixels) == set(expected.boundary_scores)
    assert selected(maps.boundary_scores) <= set(expected.boundary_scores)
    pixels, scores = zip(*expected.boundary_scores.items(), strict=True)
    np.testing.assert_allclose(maps.boundary_scores.ravel()[list(pixels)], scores, rtol=1e-5, atol=1e-6)
    assert selected(maps.boundary) == expected.boundary
    chosen = expected.inter_class | expected.boundary
    np.testing.assert_allclose(result, oracle.loss(batch, chosen, num_classes, 0.1), rtol=1e-5)
    assert_slope(slope, loss, batch, chosen)


@pytest.mark.parametrize("off", ["inter_class", "boundary"])
def test_selections_can_be_switched_off(off):
    batch = make_batch((5, 6), (33, 41), 3)
    expected = oracle.select(batch, 3, k=0.3, neighbours=64)
    chosen = expected.boundary if off == "inter_class" else expected.inter_class
    loss = LowContrastLoss(num_classes=3, **{off: False})
    result, slope, _ = evaluate(loss, batch)
    np.testing.assert_allclose(result, oracle.loss(batch, chosen, 3, 0.1), rtol=1e-5)
    assert_slope(slope, loss, batch, chosen, entries=5)


def test_without_selections_the_loss_is_zero():
    batch = make_batch((4, 4), (16, 16), 2)
    loss = LowContrastLoss(inter_class=False, boundary=False)
    assert value(loss(*batch)) == 0
    np.testing.assert_array_equal(gradient(lambda x: loss(x, *batch[1:]), batch[0]), 0)
    result, slope, maps = evaluate(loss, batch)
    assert result == 0 and not slope.any() and not maps.inter_class.any() and not maps.boundary.any()


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (
            {
                "k": 0.1,
                "inter_class_quota": "equal",
                "boundary_share": 0.25,
                "boundary_order": "lowest",
                "boundary_classes": "foreground",
            },
            {"k": 0.1, "quota": "equal", "share": 0.25, "order": "lowest", "classes": "foreground"},
        ),
        ({"boundary_classes": "foreground"}, {"classes": "foreground"}),
        ({"neighbours": 7, "temperature": 0.5, "boundary_share": 0.25}, {"neighbours": 7, "share": 0.25}),
    ],
)
def test_options(config, options):
    batch = make_batch((5, 6), (33, 41), 3, seed=10)
    expected = oracle.select(batch, 3, **{"k": 0.3, "neighbours": 64, **options})
    assert expected.gap > TIE
    result, _, maps = evaluate(LowContrastLoss(num_classes=3, **config), batch)
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary) == expected.boundary
    reference = oracle.loss(batch, expected.inter_class | expected.boundary, 3, config.get("temperature", 0.1))
    np.testing.assert_allclose(result, reference, rtol=1e-5)


def test_equal_quota_takes_all_of_a_small_class():
    batch = make_batch((4, 4), (16, 16), 2)
    masks = np.zeros_like(batch[1])
    masks[:, :2, :3] = 1
    loss = LowContrastLoss(inter_class_quota="equal", boundary=False)
    chosen = evaluate(loss, (batch[0], masks, *batch[2:])).maps.inter_class[: len(masks)]
    assert chosen[masks == 1].all()
    assert chosen[masks == 0].sum() == int(0.3 * masks.size / 2)


def test_a_class_missing_from_the_labelled_images_is_a_negative_only():
    batch = make_batch((5, 6), (33, 41), 3, seed=1)
    batch[1][batch[1] == 2] = 0
    expected = oracle.select(batch, 3, k=0.3, neighbours=64)
    assert expected.gap > TIE
    loss = LowContrastLoss(num_classes=3)
    result, slope, maps = evaluate(loss, batch)
    np.testing.assert_array_equal(maps.present, [1, 1, 0])
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary) == expected.boundary
    chosen = expected.inter_class | expected.boundary
    assert any(maps.labels.ravel()[p] == 2 for p in chosen)
    np.testing.assert_allclose(result, oracle.loss(batch, chosen, 3, 0.1), rtol=1e-5)
    assert_slope(slope, loss, batch, chosen, entries=5)


def all_ignored(batch):
    batch[1][:] = 255


def all_filtered(batch):
    batch[4][:] = 0


def nothing_counts(batch):
    all_ignored(batch)
    all_filtered(batch)


def one_class(batch):
    batch[1][:] = 1
    batch[3][:] = 1


def one_pixel_each(batch):
    # floor(0.3 * 1) = 0 of each class, and two boundary pixels of which floor(0.3 * 2) = 0 are taken.
    nothing_counts(batch)
    batch[1][0, 0, :2] = 0, 1


def zero_features(batch):
    batch[0][:] = 0
    batch[2][:] = 0


def one_zero_image(batch):
    batch[2][0] = 0


def equal_features(batch):
    batch[0][:] = 1
    batch[2][:] = 1


def opposite_features(batch):
    """Every embedding half-way between two features is 0."""
    signs = (-1.0) ** np.add.outer(np.arange(4), np.arange(4))[..., None]
    batch[0][:] = signs
    batch[2][:] = signs


@pytest.mark.parametrize(
    ("spoil", "is_zero"),
    [
        (all_ignored, True),
        (nothing_counts, True),
        (one_class, True),
        (one_pixel_each, True),
        (all_filtered, False),
        (zero_features, False),
        (one_zero_image, False),
        (equal_features, False),
        (opposite_features, False),
    ],
)
def test_degenerate_batches_are_finite(spoil, is_zero):
    batch = make_batch((4, 4), (16, 16), 2)
    spoil(batch)
    result, slope, _ = evaluate(LowContrastLoss(), batch)
    assert np.isfinite(result) and np.all(np.isfinite(slope)) and np.abs(slope).max() < 1e4
    if is_zero:
        assert result == 0
        np.testing.assert_array_equal(slope, 0)
    else:
        assert result > 0


def test_filtered_images_leave_the_labelled_ones():
    batch = make_batch((5, 6), (33, 41), 3)
    all_filtered(batch)
    expected = oracle.select(batch, 3, k=0.3, neighbours=64)
    reference = oracle.loss(batch, expected.inter_class | expected.boundary, 3, 0.1)
    result, slope, _ = evaluate(LowContrastLoss(num_classes=3), batch)
    np.testing.assert_allclose(result, reference, rtol=1e-5)
    np.testing.assert_array_equal(slope[len(batch[0]) :], 0)


def test_maps_of_labelled_images_alone():
    batch = make_batch((4, 4), (16, 16), 2)
    loss = LowContrastLoss()
    alone = evaluate(loss, (*batch[:2], batch[2][:0], batch[3][:0], batch[4][:0])).maps
    both = evaluate(loss, batch).maps
    for part, whole in zip(alone, both, strict=True):
        axis = 1 if whole.ndim == 4 else 0
        np.testing.assert_allclose(part, np.take(whole, range(part.shape[axis]), axis=axis), rtol=1e-5, atol=1e-6)


def test_ignored_pixels_do_not_matter():
    batch = make_batch((4, 4), (16, 16), 2)
    before = evaluate(LowContrastLoss(), batch).value
    batch[3][batch[4] == 0] = 7  # filtered, so of no class at all
    batch[1][batch[1] == 255] = 5  # no class either
    assert evaluate(LowContrastLoss(), batch).value == before
    assert evaluate(LowContrastLoss(ignore=5), batch).value == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_features(dtype):
    batch = make_batch((4, 4), (16, 16), 2)
    halves = [ops.cast(batch[i], dtype) for i in (0, 2)]
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in halves]
    expected = evaluate(LowContrastLoss(), (rounded[0], batch[1], rounded[1], *batch[3:])).value
    result = value(LowContrastLoss()(halves[0], batch[1], halves[1], *batch[3:]))
    assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled_with_unlike_batches(dynamic_batch):
    batch = make_batch((4, 4), (16, 16), 2, labeled=3, unlabeled=1)
    batch = (*batch[:3], batch[3].astype("uint8"), batch[4])
    loss = LowContrastLoss()
    result = value(compiled(loss, *batch, dynamic_batch=dynamic_batch))
    np.testing.assert_allclose(result, evaluate(loss, batch).value, rtol=1e-5)


def test_descent_brings_selected_pixels_to_their_class():
    labeled, masks, unlabeled, *rest = make_batch((4, 4), (16, 16), 2)
    loss, values = LowContrastLoss(), []
    for _ in range(10):
        result, slope, _ = evaluate(loss, (labeled, masks, unlabeled, *rest))
        values.append(result)
        step = 0.5 * slope / np.abs(slope).max()
        labeled, unlabeled = labeled - step[: len(labeled)], unlabeled - step[len(labeled) :]
    assert values[-1] < values[0] - 0.5


def test_config_round_trip():
    assert_config_round_trip(
        LowContrastLoss(0.1, 8, 0.2, False, False, 3, -1, "equal", 0.25, "lowest", "foreground", name="other")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.0}, "`k` must be a share"),
        ({"k": 30}, "`k` must be a share"),
        ({"boundary_share": 1.5}, "`boundary_share` must be a share"),
        ({"neighbours": 0}, "`neighbours` must be at least 1"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"num_classes": 1}, "`num_classes` must be at least 2"),
        ({"num_classes": 3, "ignore": 2}, "`ignore` must not be one of the classes 0 to 2"),
        ({"inter_class_quota": "image"}, "`inter_class_quota` must be one of"),
        ({"boundary_order": "up"}, "`boundary_order` must be one of"),
        ({"boundary_classes": "lesion"}, "`boundary_classes` must be one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LowContrastLoss(**arguments)


@pytest.mark.parametrize("name", ["labeled", "masks", "unlabeled", "pseudo_masks", "kept"])
def test_shapes_that_do_not_fit(name):
    batch = list(make_batch((4, 4), (16, 16), 2))
    position = ["labeled", "masks", "unlabeled", "pseudo_masks", "kept"].index(name)
    batch[position] = batch[position][..., None]
    with pytest.raises(ValueError, match=f"^`{name}` must have shape"):
        LowContrastLoss()(*batch)
    batch[position] = batch[position][:, :3, ..., 0]
    with pytest.raises(ValueError, match="must have shape"):
        LowContrastLoss()(*batch)


def test_sizes_have_to_be_static():
    batch = list(make_batch((4, 4), (16, 16), 2))
    batch[0] = keras.KerasTensor((None, None, None, 16))
    with pytest.raises(ValueError, match="^`labeled` must have shape .* static"):
        LowContrastLoss()(*batch)
