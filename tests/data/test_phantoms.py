import hashlib

import numpy as np
import pytest

from keras_semimed.data.phantoms.ultrasound import Grid, speckle, ultrasound_phantom, ultrasound_phantoms

SIZE = 64


@pytest.fixture(scope="module")
def phantoms():
    return ultrasound_phantoms(count=150, size=SIZE, seed=3)


def _extent(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], rows[-1], columns[0], columns[-1]


def _contrast(image, mask):
    """Grey level inside the mask minus that of everything else."""
    return image[mask == 1].mean() - image[mask == 0].mean()


@pytest.mark.parametrize("size, digest", [(64, "40f7f646b264a46e"), (128, "b2e28c1a68cbc158")])
def test_first_phantoms_never_change(size, digest):
    """A new digest means a new data set: raise the builder's version."""
    images, masks, labels = ultrasound_phantoms(count=4, size=size)
    found = hashlib.sha256(images.tobytes() + masks.tobytes() + labels.astype("<i4").tobytes()).hexdigest()[:16]
    assert found == digest


def test_phantom_depends_on_its_index_alone(phantoms):
    images, masks, labels = phantoms
    for index in (17, 4):
        image, mask, label = ultrasound_phantom(index, SIZE, seed=3)
        np.testing.assert_array_equal(image, images[index])
        np.testing.assert_array_equal(mask, masks[index])
        assert label == labels[index]
    assert not np.array_equal(ultrasound_phantom(4, SIZE, seed=4)[0], images[4])


def test_lesion_is_the_same_at_every_size():
    for index in range(5):
        _, coarse, label = ultrasound_phantom(index, 64)
        _, fine, fine_label = ultrasound_phantom(index, 192)
        assert label == fine_label
        block_mean = fine.reshape(64, 3, 64, 3).mean(axis=(1, 3)) > 0.5
        assert 2 * np.sum(block_mean & (coarse == 1)) / (block_mean.sum() + coarse.sum()) > 0.96


def test_formats_and_areas(phantoms):
    images, masks, labels = phantoms
    assert images.shape == masks.shape == (150, SIZE, SIZE)
    assert (images.dtype, masks.dtype, labels.dtype) == (np.uint8, np.uint8, np.int32)
    assert set(np.unique(masks)) == {0, 1}
    assert set(labels) == {0, 1}
    areas = masks.mean(axis=(1, 2))
    assert 0.008 < areas.min() < 0.03
    assert 0.15 < areas.max() < 0.26
    assert 0.23 < labels.mean() < 0.43  # 1/3 within 2.6 standard errors


def test_homogeneous_tissue_gives_rayleigh_speckle():
    grid = Grid(128)
    rng = np.random.default_rng(0)
    envelope = np.stack([grid.crop(np.abs(speckle(rng, grid, np.ones(grid.shape), 18.0))) for _ in range(6)])
    snr = envelope.mean() / envelope.std()
    assert snr == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.04)  # 1.913
    assert np.mean(envelope**2) == pytest.approx(1.0, abs=0.04)
    for q in (0.1, 0.5, 0.9):
        assert np.quantile(envelope, q) == pytest.approx(np.sqrt(-np.log(1 - q)), rel=0.04)


def test_speckle_is_wider_away_from_the_focus():
    grid = Grid(128)
    rng = np.random.default_rng(0)
    echo = np.stack([grid.crop(speckle(rng, grid, np.ones(grid.shape), 10.0)) for _ in range(6)])

    def correlation(rows):
        left, right = echo[:, rows, :-1], echo[:, rows, 1:]
        return np.mean(left * right.conj()).real / np.mean(np.abs(echo[:, rows]) ** 2)

    focus, deep = correlation(slice(54, 74)), correlation(slice(236, 256))
    # Two Gaussian point-spread functions one pitch apart overlap by exp(-(pitch / 2 width)^2).
    assert focus == pytest.approx(np.exp(-((0.3125 / (2 * 0.32)) ** 2)), abs=0.04)
    assert deep == pytest.approx(np.exp(-((0.3125 / (2 * 0.32)) ** 2) / (1 + (28.4 / 16) ** 2)), abs=0.04)


def test_mask_is_where_the_dark_lesion_is(phantoms):
    images, masks, _ = phantoms
    at_place = np.array([_contrast(i, m) for i, m in zip(images, masks, strict=True)])
    assert np.mean(at_place < 0) > 0.93
    for axis in (1, 2):
        for shift in (-6, 6):
            moved = np.roll(masks, shift, axis=axis)
            elsewhere = np.array([_contrast(i, m) for i, m in zip(images, moved, strict=True)])
            assert np.mean(elsewhere - at_place) > 4 * np.std(elsewhere - at_place) / np.sqrt(len(masks))


def test_shadow_below_malignant_enhancement_below_benign(phantoms):
    images, masks, labels = phantoms
    below_minus_beside = {0: [], 1: []}
    for image, mask, label in zip(images.astype(float), masks, labels, strict=True):
        _, bottom, left, right = _extent(mask)
        quarter = max(1, (right - left) // 4)
        strip = image[bottom + 3 : bottom + 19]
        if len(strip) < 4:
            continue
        middle = strip[:, left + quarter : right - quarter + 1].mean()
        beside = np.concatenate([strip[:, max(0, left - 10) : max(0, left - 3)], strip[:, right + 4 : right + 11]], 1)
        below_minus_beside[label].append(middle - beside.mean())
    benign, malignant = (np.array(below_minus_beside[label]) for label in (0, 1))
    assert benign.mean() > 3 * benign.std() / np.sqrt(len(benign))
    assert malignant.mean() < -3 * malignant.std() / np.sqrt(len(malignant))


def test_malignant_lesions_are_taller_and_rougher(phantoms):
    _, masks, labels = phantoms
    boxes = np.array([_extent(mask) for mask in masks])
    taller = (boxes[:, 1] - boxes[:, 0]) > (boxes[:, 3] - boxes[:, 2])
    assert taller[labels == 1].mean() > 0.5
    assert 0.0 < taller[labels == 0].mean() < 0.25  # the sign overlaps
    edges = np.abs(np.diff(masks.astype(int), axis=1)).sum((1, 2)) + np.abs(np.diff(masks.astype(int), axis=2)).sum(
        (1, 2)
    )
    roughness = edges / np.sqrt(masks.sum((1, 2)))
    assert roughness[labels == 1].mean() > roughness[labels == 0].mean() + 0.2


def test_no_global_grey_statistic_gives_the_label_away(phantoms):
    images, _, labels = phantoms
    pixels = images.reshape(len(images), -1).astype(float)
    for statistic in (pixels.mean(1), pixels.std(1), *np.quantile(pixels, (0.02, 0.5, 0.98), axis=1)):
        ranks = statistic.argsort().argsort()
        positives = labels == 1
        auc = (ranks[positives].sum() - positives.sum() * (positives.sum() - 1) / 2) / (
            positives.sum() * (~positives).sum()
        )
        assert 0.25 < auc < 0.75


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"count": 0}, "count is 0"),
        ({"count": 1, "size": 16}, "size is 16"),
        ({"count": 1, "seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ultrasound_phantoms(**arguments)
