"""The endoscopy phantoms: fixed, complete, imbalanced, of low contrast; their rays and shapes."""

import hashlib

import numpy as np
import pytest

from keras_semimed.data.phantoms.endoscopy import endoscopy_phantom, endoscopy_phantoms
from keras_semimed.data.phantoms.endoscopy_scene import Fold, Polyp, Scene, Tube, frame, rays

SIZE = 48
STRAIGHT = Tube((0.0, 0.0), np.eye(3), (0.0, 0.0), (0.0, 0.0), ())


@pytest.fixture(scope="module")
def phantoms():
    return endoscopy_phantoms(count=80, size=SIZE, seed=1)


def test_first_phantoms_never_change():
    """A new digest means a new data set: raise the builder's version."""
    images, masks = endoscopy_phantoms(count=2)
    assert hashlib.sha256(masks.tobytes()).hexdigest()[:16] == "88270caa1fe76d3d"
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "8c21f033036c303e"


def test_a_phantom_depends_on_its_index_alone(phantoms):
    images, masks = phantoms
    for index in (17, 4):
        image, mask = endoscopy_phantom(index, SIZE, seed=1)
        np.testing.assert_array_equal(image, images[index])
        np.testing.assert_array_equal(mask, masks[index])
    assert not np.array_equal(endoscopy_phantom(4, SIZE, seed=2)[0], images[4])


def test_what_is_shown_is_the_same_at_every_size():
    for index in (0, 2, 5):
        image, mask = endoscopy_phantom(index, 48)
        fine_image, fine_mask = endoscopy_phantom(index, 144)
        block = (fine_mask > 0).reshape(48, 3, 48, 3).mean((1, 3)) > 0.5
        assert 2 * np.sum(block & (mask > 0)) / (block.sum() + (mask > 0).sum()) > 0.93
        small = fine_image.reshape(48, 3, 48, 3, 3).mean((1, 3))
        assert np.corrcoef(small.ravel(), image.ravel())[0, 1] > 0.97


def test_shapes_classes_and_balance(phantoms):
    images, masks = phantoms
    assert images.shape == (80, SIZE, SIZE, 3) and images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1, 2}
    common, rare = ((masks == kind).any((1, 2)).sum() for kind in (1, 2))
    assert 2 * rare < common and rare >= 8
    assert (masks == 1).sum() > 3 * (masks == 2).sum()
    empty = (masks == 0).all((1, 2)).mean()
    assert 0.05 < empty < 0.3
    areas = (masks > 0).mean((1, 2))
    assert 0.03 < np.median(areas[areas > 0]) < 0.15


def test_mucosa_is_reddish_corners_are_black_and_highlights_white(phantoms):
    images, masks = phantoms
    light = images.astype(float)
    assert light[:, 1, 1].max() < 25 and light[:, -2, -2].max() < 25
    assert (masks[:, :2, :2] == 0).all()
    inside = light[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].reshape(len(images), -1, 3)
    red, green, blue = np.moveaxis(inside.mean(1), -1, 0)
    assert (red > green).all() and (green > 0.8 * blue).all()
    white = (images.min(-1) > 235).mean((1, 2))
    assert 0.002 < np.mean(white) < 0.06


def ring(mask):
    grown, near = mask.copy(), mask.copy()
    for step in range(4):
        for axis in (0, 1):
            grown = grown | np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
        near = grown if step == 0 else near
    return grown & ~near


def test_contrast_at_the_boundary_is_low_but_there(phantoms):
    contrasts = []
    for image, mask in zip(*phantoms, strict=True):
        around = ring(mask > 0) & (image.max(-1) > 30)
        if (mask > 0).sum() > 40 and around.sum() > 30:
            grey = image.mean(-1)
            contrasts.append((grey[mask > 0].mean() - grey[around].mean()) / grey[around].std())
    contrasts = np.array(contrasts)
    assert len(contrasts) > 40 and 0.5 < np.median(np.abs(contrasts)) < 1.6
    assert contrasts.mean() > 4 * contrasts.std() / np.sqrt(len(contrasts))  # nearer to the light than what is behind


def test_no_simple_measure_tells_the_kinds_apart(phantoms):
    features, kinds = [], []
    for image, mask in zip(phantoms[0].astype(float), phantoms[1], strict=True):
        for kind in (1, 2):
            if (mask == kind).sum() > 15:
                pixels = image[mask == kind]
                features.append([len(pixels), pixels.mean(), pixels.std(), (pixels[:, 0] / pixels.sum(1)).mean()])
                kinds.append(kind)
    rare = np.array(kinds) == 2
    assert rare.sum() >= 8
    for feature in np.array(features).T:
        ranks = feature.argsort().argsort()
        area = (ranks[rare].sum() - rare.sum() * (rare.sum() - 1) / 2) / (rare.sum() * (~rare).sum())
        assert 0.1 < area < 0.9


def test_rays_are_those_of_a_fisheye_lens():
    directions = rays(100)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1.0, atol=1e-12)
    angle = np.degrees(np.arccos(directions[..., 2]))
    np.testing.assert_allclose(angle[0, 0], 0.99 * 70, atol=0.1)  # the diagonal sees 140 degrees
    np.testing.assert_allclose(angle[50, 75], angle[50, 50] + 25 * angle[50, 60] / 10.5, rtol=0.05)  # equal angles
    assert directions[10, 50, 1] < 0 < directions[90, 50, 1] and directions[50, 10, 0] < 0


def test_rays_meet_a_straight_tube_where_geometry_says():
    angles = np.deg2rad([15.0, 30.0, 60.0])
    directions = np.stack([np.sin(angles), np.zeros(3), np.cos(angles)], -1)
    np.testing.assert_allclose(Scene(STRAIGHT).hit(directions), 1 / np.sin(angles), rtol=1e-3)
    normals = Scene(STRAIGHT).normals(directions / np.sin(angles)[:, None])
    np.testing.assert_allclose(normals, [[-1, 0, 0]] * 3, atol=1e-2)


def test_a_fold_hides_the_wall_behind_it():
    fold = Fold(depth=1.5, slant=(0.0, 0.0), turn=0.0, height=0.5, width=0.12, spread=1.0)
    folded = Scene(Tube((0.0, 0.0), np.eye(3), (0.0, 0.0), (0.0, 0.0), (fold,)))
    ray = np.array([[0.75, 0.0, 2.0], [-0.75, 0.0, 2.0]])
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    near, far = folded.hit(ray)
    assert 1.2 < near * ray[0, 2] < 1.6  # stopped by the fold
    assert far == pytest.approx(1 / 0.75 * np.hypot(0.75, 2.0), abs=0.1)  # the other side has none


def test_a_polyp_stands_out_of_the_wall():
    axes = frame(np.array([-1.0, 0.0, 0.0]), 0.3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    polyp = Polyp(1, np.array([1.0, 0.0, 2.0]), axes, (0.3, 0.3, 0.2), (), blend=0.05)
    ray = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]]) / np.sqrt(5)
    with_polyp, without = Scene(STRAIGHT, (polyp,)).hit(ray), Scene(STRAIGHT).hit(ray)
    assert without[0] - with_polyp[0] > 0.15 and with_polyp[1] == pytest.approx(without[1], abs=2e-3)
    np.testing.assert_allclose(polyp.distance(np.array([[0.8, 0.0, 2.0], [1.0, 0.0, 2.3]])), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [({"count": 0}, "count is 0"), ({"count": 1, "size": 16}, "size is 16"), ({"count": 1, "seed": -1}, "seed is -1")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        endoscopy_phantoms(**arguments)
