from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.losses import LowContrastLoss
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


def selected(mask):
    return set(np.flatnonzero(ops.convert_to_numpy(mask)).tolist())


def call(loss, features, batch):
    """The loss as a function of all features, so that one gradient covers both arguments."""
    split = len(batch[0])
    return loss(features[:split], batch[1], features[split:], *batch[3:])


def features_of(batch):
    return np.concatenate([batch[0], batch[2]])


def assert_gradient(loss, batch, chosen, entries=20, rtol=1e-5):
    """Compares single entries with central differences of the oracle on fixed selections."""
    features, split = features_of(batch), len(batch[0])
    result = gradient(lambda x: call(loss, x, batch), features)
    rng, step, scale = np.random.default_rng(1), 1e-5, float(np.abs(result).max())
    assert scale > 0
    for _ in range(entries):
        index = tuple(rng.integers(n) for n in features.shape)
        values = []
        for sign in (1, -1):
            moved = features.astype("float64")
            moved[index] += sign * step
            moved_batch = (moved[:split], batch[1], moved[split:], *batch[3:])
            values.append(oracle.loss(moved_batch, chosen, loss.num_classes, loss.temperature))
        assert result[index] == pytest.approx((values[0] - values[1]) / (2 * step), rel=rtol, abs=rtol * scale)


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
    maps = loss.maps(*batch)
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary_pixels) == set(expected.boundary_scores)
    scores = ops.convert_to_numpy(maps.boundary_scores).ravel()
    pixels = sorted(expected.boundary_scores)
    np.testing.assert_allclose(scores[pixels], [expected.boundary_scores[p] for p in pixels], rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(scores) <= len(pixels)
    assert selected(maps.boundary) == expected.boundary
    chosen = expected.inter_class | expected.boundary
    np.testing.assert_allclose(value(loss(*batch)), oracle.loss(batch, chosen, num_classes, 0.1), rtol=1e-5)
    assert_gradient(loss, batch, chosen)


@pytest.mark.parametrize("off", ["inter_class", "boundary"])
def test_selections_can_be_switched_off(off):
    batch = make_batch((5, 6), (33, 41), 3)
    expected = oracle.select(batch, 3, k=0.3, neighbours=64)
    chosen = expected.boundary if off == "inter_class" else expected.inter_class
    loss = LowContrastLoss(num_classes=3, **{off: False})
    np.testing.assert_allclose(value(loss(*batch)), oracle.loss(batch, chosen, 3, 0.1), rtol=1e-5)
    assert_gradient(loss, batch, chosen, entries=5)


def test_without_selections_the_loss_is_zero():
    batch = make_batch((4, 4), (16, 16), 2)
    loss = LowContrastLoss(inter_class=False, boundary=False)
    assert value(loss(*batch)) == 0
    np.testing.assert_array_equal(gradient(lambda x: call(loss, x, batch), features_of(batch)), 0)
    assert not selected(loss.maps(*batch).inter_class) and not selected(loss.maps(*batch).boundary)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"k": 0.1}, {"k": 0.1}),
        ({"boundary_share": 0.25}, {"share": 0.25}),
        ({"inter_class_quota": "equal", "k": 0.1}, {"quota": "equal", "k": 0.1}),
        ({"boundary_order": "lowest"}, {"order": "lowest"}),
        ({"boundary_classes": "foreground"}, {"classes": "foreground"}),
        ({"neighbours": 7, "temperature": 0.5}, {"neighbours": 7}),
    ],
)
def test_options(config, options):
    batch = make_batch((5, 6), (33, 41), 3, seed=10)
    expected = oracle.select(batch, 3, **{"k": 0.3, "neighbours": 64, **options})
    assert expected.gap > TIE
    loss = LowContrastLoss(num_classes=3, **config)
    maps = loss.maps(*batch)
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary) == expected.boundary
    reference = oracle.loss(batch, expected.inter_class | expected.boundary, 3, config.get("temperature", 0.1))
    np.testing.assert_allclose(value(loss.contrast(maps)), reference, rtol=1e-5)


def test_equal_quota_takes_all_of_a_small_class():
    batch = make_batch((4, 4), (16, 16), 2)
    masks = np.zeros_like(batch[1])
    masks[:, :2, :3] = 1
    maps = LowContrastLoss(inter_class_quota="equal", boundary=False).maps(batch[0], masks, *batch[2:])
    chosen = ops.convert_to_numpy(maps.inter_class)[: len(masks)]
    assert chosen[masks == 1].all()
    assert chosen[masks == 0].sum() == int(0.3 * masks.size / 2)


def test_a_class_missing_from_the_labelled_images_is_a_negative_only():
    batch = make_batch((5, 6), (33, 41), 3, seed=1)
    batch[1][batch[1] == 2] = 0
    expected = oracle.select(batch, 3, k=0.3, neighbours=64)
    assert expected.gap > TIE
    loss = LowContrastLoss(num_classes=3)
    maps = loss.maps(*batch)
    np.testing.assert_array_equal(ops.convert_to_numpy(maps.present), [1, 1, 0])
    assert selected(maps.inter_class) == expected.inter_class
    assert selected(maps.boundary) == expected.boundary
    labels = ops.convert_to_numpy(maps.labels).ravel()
    chosen = expected.inter_class | expected.boundary
    assert any(labels[p] == 2 for p in chosen)
    np.testing.assert_allclose(value(loss(*batch)), oracle.loss(batch, chosen, 3, 0.1), rtol=1e-5)
    assert_gradient(loss, batch, chosen, entries=5)


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
    batch = make_batch((4, 4), (16, 12), 2)
    spoil(batch)
    loss = LowContrastLoss()
    result = value(loss(*batch))
    slope = gradient(lambda x: call(loss, x, batch), features_of(batch))
    assert np.isfinite(result) and np.all(np.isfinite(slope)) and np.abs(slope).max() < 1e4
    if is_zero:
        assert result == 0
        np.testing.assert_array_equal(slope, 0)
    else:
        assert result > 0


def test_filtered_images_leave_the_labelled_ones():
    batch = make_batch((5, 6), (33, 41), 2)
    all_filtered(batch)
    expected = oracle.select(batch, 2, k=0.3, neighbours=64)
    reference = oracle.loss(batch, expected.inter_class | expected.boundary, 2, 0.1)
    loss = LowContrastLoss()
    np.testing.assert_allclose(value(loss(*batch)), reference, rtol=1e-5)
    slope = gradient(lambda x: call(loss, x, batch), features_of(batch))
    np.testing.assert_array_equal(slope[len(batch[0]) :], 0)


def test_maps_of_labelled_images_alone():
    batch = make_batch((4, 4), (16, 16), 2, labeled=2)
    loss = LowContrastLoss()
    alone = loss.maps(*batch[:2], batch[2][:0], batch[3][:0], batch[4][:0])
    both = loss.maps(*batch)
    for part, whole in zip(alone, both, strict=True):
        axis = 1 if len(whole.shape) == 4 else 0
        expected = np.take(ops.convert_to_numpy(whole), range(part.shape[axis]), axis=axis)
        np.testing.assert_allclose(ops.convert_to_numpy(part), expected, rtol=1e-5, atol=1e-6)


def test_ignored_pixels_do_not_matter():
    batch = make_batch((4, 4), (16, 16), 2)
    loss = LowContrastLoss()
    before = value(loss(*batch))
    batch[3][batch[4] == 0] = 7  # filtered, so of no class at all
    batch[1][batch[1] == 255] = 5  # no class either
    assert value(loss(*batch)) == before
    assert value(LowContrastLoss(ignore=5)(*batch)) == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_features(dtype):
    batch = make_batch((4, 4), (16, 16), 2)
    halves = [ops.cast(batch[i], dtype) for i in (0, 2)]
    loss = LowContrastLoss()
    rounded = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in halves]
    expected = value(loss(rounded[0], batch[1], rounded[1], *batch[3:]))
    assert value(loss(halves[0], batch[1], halves[1], *batch[3:])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_compiled_with_unlike_batches(dynamic_batch):
    batch = make_batch((4, 5), (16, 20), 2, labeled=3, unlabeled=1)
    batch = (*batch[:3], batch[3].astype("uint8"), batch[4])
    loss = LowContrastLoss()
    result = value(compiled(loss, *batch, dynamic_batch=dynamic_batch))
    np.testing.assert_allclose(result, value(loss(*batch)), rtol=1e-5)


def test_descent_brings_selected_pixels_to_their_class():
    batch = make_batch((4, 4), (16, 16), 2)
    loss = LowContrastLoss()
    features = features_of(batch)
    before = value(call(loss, ops.convert_to_tensor(features), batch))
    for _ in range(10):
        slope = gradient(lambda x: call(loss, x, batch), features)
        features = features - 0.5 * slope / np.abs(slope).max()
    assert value(call(loss, ops.convert_to_tensor(features), batch)) < before - 0.5


def test_config_round_trip():
    assert_config_round_trip(
        LowContrastLoss(0.1, 8, 0.2, False, False, 3, -1, "equal", 0.25, "lowest", "foreground", name="other")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.0}, "k must be a share"),
        ({"k": 30}, "k must be a share"),
        ({"boundary_share": 1.5}, "boundary_share must be a share"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"num_classes": 3, "ignore": 2}, "ignore must not be one of the classes 0 to 2"),
        ({"inter_class_quota": "image"}, "inter_class_quota must be one of"),
        ({"boundary_order": "up"}, "boundary_order must be one of"),
        ({"boundary_classes": "lesion"}, "boundary_classes must be one of"),
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
    with pytest.raises(ValueError, match=f"^{name} must have shape"):
        LowContrastLoss()(*batch)
    batch[position] = batch[position][:, :3, ..., 0]
    with pytest.raises(ValueError, match="must have shape"):
        LowContrastLoss()(*batch)


def test_sizes_have_to_be_static():
    batch = list(make_batch((4, 4), (16, 16), 2))
    batch[0] = keras.KerasTensor((None, None, None, 16))
    with pytest.raises(ValueError, match="^labeled must have shape .* static"):
        LowContrastLoss()(*batch)
