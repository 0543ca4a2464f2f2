"""Views: images and masks move together, strong views stay in place, the random stream can be saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.layers import WeakStrongViews
from tests.layers.compiled import compiled

STILL = {"horizontal_flip": False, "scale": (1.0, 1.0), "shift": 0.0}
QUIET = {"jitter": (0.0, 0.0, 0.0, 0.0), "blur_probability": 0.0}


def _numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def _run(function, views, *arrays):
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    return _numpy(compiled(function, [views.random_state])(*tensors))


def _weak_and_mask(views, images, masks):
    def step(images, masks):
        geometry = views.draw(len(images), *images.shape[1:3])
        return views.weak(images, geometry), views.mask(masks, geometry), geometry

    return _run(step, views, images, masks)


def _centre(weights):
    rows, columns = np.indices(weights.shape)
    return np.array([(rows * weights).sum(), (columns * weights).sum()]) / weights.sum()


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("uint8")


def test_identity_geometry_returns_image_and_mask():
    images, masks = _noise(2, 16, 16, 3), _noise(2, 16, 16)
    weak, moved, _ = _weak_and_mask(WeakStrongViews(16, **STILL), images, masks)
    assert weak.dtype == "float32" and moved.dtype == "int32"
    np.testing.assert_allclose(weak, images, atol=1e-3)
    np.testing.assert_array_equal(moved, masks)


def test_a_flip_alone_mirrors_exactly():
    images, masks = _noise(16, 12, 12, 3), _noise(16, 12, 12)
    views = WeakStrongViews(12, vertical_flip=True, scale=(1, 1), shift=0)
    weak, moved, geometry = _weak_and_mask(views, images, masks)
    up, left = (geometry[axis][:, 0] > geometry[axis][:, -1] for axis in ("rows", "columns"))
    assert len(set(zip(up, left, strict=True))) == 4
    for n in range(16):
        order = (slice(None, None, -1 if up[n] else 1), slice(None, None, -1 if left[n] else 1))
        np.testing.assert_allclose(weak[n], images[n][order], atol=1e-3)
        np.testing.assert_array_equal(moved[n], masks[n][order])


@pytest.mark.parametrize("height, width", [(32, 32), (40, 56), (20, 26)])
def test_image_and_mask_move_together(height, width):
    images, masks = np.zeros((16, height, width, 3), "uint8"), np.zeros((16, height, width), "uint8")
    images[:, 6:14, 8:18], masks[:, 6:14, 8:18] = 255, 1
    weak, moved, geometry = _weak_and_mask(WeakStrongViews(32, vertical_flip=True), images, masks)
    for n in range(16):
        square = moved[n] == 1
        np.testing.assert_allclose(_centre(weak[n, :, :, 0]), _centre(square), atol=0.6)
        # Where the two could disagree is half a step around the edge.
        np.testing.assert_array_equal(square[weak[n, :, :, 0] > 254], True)
        np.testing.assert_array_equal(square[weak[n, :, :, 0] < 1], False)
        # The square's centre lies where the geometry says.
        rows, columns = geometry["rows"][n], geometry["columns"][n]
        expected = [np.abs(rows - 9.5).argmin(), np.abs(columns - 12.5).argmin()]
        np.testing.assert_allclose(_centre(square), expected, atol=1.1)


@pytest.mark.parametrize("height, width", [(32, 32), (64, 96)])
def test_a_marked_pixel_is_found_at_its_place(height, width):
    images, masks = np.zeros((8, height, width, 1), "uint8"), np.zeros((8, height, width), "uint8")
    row, column = height // 3, width // 2
    images[:, row, column] = 255
    masks[:, row - 1 : row + 2, column - 1 : column + 2] = 1  # nearest sampling may step over a single pixel
    weak, moved, _ = _weak_and_mask(WeakStrongViews(32), images, masks)
    for n in range(8):
        brightest = np.unravel_index(weak[n, :, :, 0].argmax(), (32, 32))
        assert moved[n][brightest] == 1


def test_outside_is_black_and_ignored():
    images, masks = np.full((16, 24, 30, 3), 200, "uint8"), np.ones((16, 24, 30), "uint8")
    views = WeakStrongViews(20, scale=(0.6, 1.4), shift=0.2)
    weak, moved, geometry = _weak_and_mask(views, images, masks)
    assert set(np.unique(moved)) == {1, 255}
    geometry = keras.tree.map_structure(ops.convert_to_tensor, geometry)
    np.testing.assert_array_equal(_numpy(views.visible(geometry, 24, 30)), moved == 1)
    np.testing.assert_allclose(weak, np.where(moved == 255, 0, 200)[..., None] * np.ones(3), rtol=1e-5)


def test_scale_is_zoom_and_shift_is_a_share_of_the_image():
    geometry = _numpy(WeakStrongViews(10, scale=(2.0, 2.0), shift=0.0, horizontal_flip=False).draw(3, 40, 20))
    np.testing.assert_allclose(geometry["rows"], np.tile(19.5 + 2 * (np.arange(10) - 4.5), (3, 1)), atol=1e-4)
    np.testing.assert_allclose(geometry["columns"], np.tile(9.5 + 1 * (np.arange(10) - 4.5), (3, 1)), atol=1e-4)
    geometry = _numpy(WeakStrongViews(10, scale=(1.0, 1.0), shift=0.1).draw(200, 40, 20))
    assert 3.5 < np.abs(geometry["rows"].mean(axis=1) - 19.5).max() <= 4.0
    assert 1.75 < np.abs(geometry["columns"].mean(axis=1) - 9.5).max() <= 2.0


def test_strong_view_without_strength_is_the_weak_view():
    views = WeakStrongViews(16, **QUIET)
    weak, strong = _run(views, views, _noise(4, 20, 20, 3))
    np.testing.assert_allclose(strong, weak, atol=1e-3)


def test_strong_view_keeps_the_geometry():
    images = np.full((16, 24, 24, 3), 40, "uint8")
    images[:, 4:12, 10:20] = 180
    views = WeakStrongViews(24)
    weak, strong = _run(views, views, images)
    assert np.abs(weak - strong).max() > 20
    for n in range(16):
        bright, same = (view[n].mean(axis=-1) > 0.5 * (view[n].min() + view[n].max()) for view in (weak, strong))
        inner = weak[n].mean(axis=-1) > 179
        assert same[inner].mean() > 0.9
        np.testing.assert_allclose(_centre(bright), _centre(same), atol=1.0)


def test_strong_parameters_are_drawn_per_image_with_their_probabilities():
    images = np.tile(_noise(1, 8, 8, 3), (400, 1, 1, 1)).astype("float32")
    options = {"jitter_probability": 0.8, "grey_probability": 0.3, "blur_probability": 0.0}
    views = WeakStrongViews(8, jitter=(0.5, 0.0, 0.0, 0.0), **options)
    strong = _run(views.strong, views, images)
    grey = np.ptp(strong, axis=-1).max(axis=(1, 2)) < 1e-2
    assert 0.2 < grey.mean() < 0.4
    brightness = strong[~grey].min(axis=(1, 2, 3)) / images.min() if images.min() else strong[~grey].mean((1, 2, 3))
    assert 0.1 < np.isclose(np.abs(strong - images).max(axis=(1, 2, 3))[~grey], 0, atol=1e-2).mean() < 0.3
    assert len(np.unique(np.round(brightness, 3))) > 100
    views = WeakStrongViews(8, jitter=(0, 0, 0, 0), blur_probability=0.5)
    strong = _run(views.strong, views, images)
    assert 0.4 < (np.abs(strong - images).max(axis=(1, 2, 3)) > 0.01).mean() < 0.6


def test_one_channel_and_wrong_channels():
    views = WeakStrongViews(12)
    weak, strong = _run(views, views, _noise(2, 12, 12, 1))
    assert tuple(weak.shape) == tuple(strong.shape) == (2, 12, 12, 1)
    with pytest.raises(ValueError, match="1 or 3 channels, found 2"):
        views.strong(np.zeros((1, 12, 12, 2), "float32"))


def test_same_seed_same_views_and_other_seed_others():
    images = ops.convert_to_tensor(_noise(2, 12, 12, 3))
    layers = WeakStrongViews(12, seed=3), WeakStrongViews(12, seed=3)
    first, second = (compiled(views, [views.random_state]) for views in layers)
    for _ in range(2):
        np.testing.assert_array_equal(_numpy(first(images)[1]), _numpy(second(images)[1]))
    draws = [_numpy(WeakStrongViews(12, seed=seed).draw(50, 12, 12)["rows"])[:, 0] for seed in (0, 1, 2)]
    assert abs(np.corrcoef(draws)[np.triu_indices(3, 1)]).max() < 0.5
    assert not set(np.round(draws[0], 4)) & set(np.round(draws[1], 4))


def test_draws_differ_between_compiled_steps_and_equal_the_eager_stream():
    images = ops.convert_to_tensor(_noise(2, 12, 12, 3))
    views, eager = WeakStrongViews(12, seed=1), WeakStrongViews(12, seed=1)
    step = compiled(views, [views.random_state])
    results = [_numpy(step(images)) for _ in range(3)]
    assert np.abs(results[0][0] - results[1][0]).max() > 1
    for weak, strong in results:
        expected = _numpy(eager(images))
        np.testing.assert_allclose(weak, expected[0], atol=1e-2)
        np.testing.assert_allclose(strong, expected[1], atol=1e-2)
    np.testing.assert_array_equal(_numpy(views.random_state.value)[1], 6)


def test_saved_weights_continue_the_stream(tmp_path):
    images = _noise(2, 12, 12, 3)
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, WeakStrongViews(12, seed=5, name="views")(inputs))
    model.predict(images, verbose=0)
    saved = model.get_layer("views")
    _run(saved, saved, images)
    model.save(tmp_path / "views.keras")
    loaded = keras.saving.load_model(tmp_path / "views.keras").get_layer("views")
    assert loaded.get_config() == saved.get_config()
    assert _numpy(saved.random_state.value)[1] > 0
    np.testing.assert_array_equal(_numpy(loaded.random_state.value), _numpy(saved.random_state.value))
    np.testing.assert_array_equal(_run(loaded, loaded, images)[1], _run(saved, saved, images)[1])
    # Listed twice, it would be donated twice to a compiled JAX step.
    assert len(saved.variables) == len(saved.weights) == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_views_are_float32_under_any_policy(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        views = WeakStrongViews(12, dtype=policy)
        weak, strong = views(ops.convert_to_tensor(_noise(2, 12, 12, 3)))
    finally:
        keras.config.set_dtype_policy(previous)
    assert {keras.backend.standardize_dtype(view.dtype) for view in (weak, strong)} == {"float32"}


@pytest.mark.parametrize(
    "argument",
    [
        {"image_size": 1},
        {"scale": (1.2, 0.8)},
        {"scale": (0.0, 1.0)},
        {"shift": 1.5},
        {"jitter": (0.5, 0.5, 0.5)},
        {"jitter": (0.5, 0.5, 0.5, 0.6)},
        {"blur_sigma": (-1.0, 2.0)},
        {"blur_probability": 1.1},
        {"seed": -1},
        {"seed": None},
    ],
)
def test_wrong_arguments_are_named(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        WeakStrongViews(**argument)


def test_padding_is_not_visible_where_an_area_is_given():
    views = WeakStrongViews(8, horizontal_flip=True, scale=(1.0, 1.0), shift=0.0, seed=3)
    areas = np.array([[2, 0, 6, 8], [0, 1, 8, 4], [0, 0, 8, 8]], "int32")
    mask = np.full((3, 8, 8), 255, "int32")
    for n, (top, left, bottom, right) in enumerate(areas):
        mask[n, top:bottom, left:right] = 1
    geometry = views.draw(3, 8, 8)
    visible = ops.convert_to_numpy(views.visible(geometry, 8, 8, ops.convert_to_tensor(areas)))
    np.testing.assert_array_equal(visible, ops.convert_to_numpy(views.mask(mask, geometry)) == 1)
    assert visible.sum() == 4 * 8 + 8 * 3 + 64
