from __future__ import annotations

import math

import numpy as np
import pytest

from keras_semimed.metrics import hausdorff_distance_95, normalized_surface_distance
from keras_semimed.metrics.surface import surface_distances

TURN = math.sqrt(2) / 2


def rectangle(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_squares_three_columns_apart():
    truth, prediction = (rectangle((20, 24), (5, 15), (left, left + 10)) for left in (5, 8))
    # An outline has 4 * 9 straight elements and 4 turns. By distance, of the truth's: 0 for 7 on each of the two sides
    # along the shift and both far turns; 1 and 2 for one on each side, and for two each of the far side, which sees the
    # sides along the shift; 3 for the rest. The prediction's mirror them.
    total = 36 + 4 * TURN
    for tolerance, within in ((0, 14 + 2 * TURN), (1, 18 + 2 * TURN), (2, 22 + 2 * TURN), (2.9, 22 + 2 * TURN)):
        assert normalized_surface_distance(truth, prediction, tolerance) == pytest.approx(within / total)
        assert normalized_surface_distance(prediction, truth, tolerance) == pytest.approx(within / total)
    assert normalized_surface_distance(truth, prediction, 3) == 1
    assert hausdorff_distance_95(truth, prediction) == 3


def test_lengths_of_the_elements():
    # A bar of 3 columns and one of 4, both of 2 rows that are 2 high; columns are half wide.
    truth, prediction = (rectangle((4, 6), (1, 3), (1, 1 + width)) for width in (3, 4))
    turn = math.hypot(2, 0.5) / 2
    found = surface_distances(truth, prediction, (2, 0.5))
    # Of the truth: 4 turns, 4 elements of a column's width, 2 of a row's height.
    assert sorted(found.truth_lengths) == pytest.approx([0.5] * 4 + [turn] * 4 + [2] * 2)
    # On the other's outline: the truth's but for the middle of its end; the prediction's but for its end.
    score = ((4 + 4 * turn) + (5 + 2 * turn)) / ((6 + 4 * turn) + (7 + 4 * turn))
    assert normalized_surface_distance(truth, prediction, 0, (2, 0.5)) == pytest.approx(score)
    assert normalized_surface_distance(truth, prediction, 0.49, (2, 0.5)) == pytest.approx(score)
    assert normalized_surface_distance(truth, prediction, 0.5, (2, 0.5)) == 1
    assert hausdorff_distance_95(truth, prediction, (2, 0.5)) == 0.5
    # Two pixels that touch by their corners: 6 turns and, between them, both outlines at once.
    corners = surface_distances(np.eye(2, dtype=bool), np.eye(2, dtype=bool))
    assert sorted(corners.truth_lengths) == pytest.approx([TURN] * 6 + [2 * TURN])


def test_spacing_has_rows_first():
    truth = rectangle((6, 6), (2, 3), (2, 3))
    for shift, distance in (((1, 0), 3.0), ((0, 1), 0.25)):
        moved = np.roll(truth, shift, (0, 1))
        assert hausdorff_distance_95(truth, moved, (3.0, 0.25)) == distance
        assert normalized_surface_distance(truth, moved, distance, (3.0, 0.25)) == 1
        assert normalized_surface_distance(truth, moved, 0.99 * distance, (3.0, 0.25)) == 0.5


def test_hausdorff_leaves_out_5_percent_of_the_length():
    # A lone pixel is 4 of 4 * 19 + 8 turns' length, 3.5 %, beside 20 x 20 pixels, but 6.8 % beside 10 x 10.
    for side, expected in ((20, 0.0), (10, 15.0)):
        truth = rectangle((30, 60), (5, 5 + side), (5, 5 + side))
        prediction = truth.copy()
        prediction[10, 20 + side] = True
        assert hausdorff_distance_95(truth, prediction) == expected
        assert hausdorff_distance_95(prediction, truth) == expected


def test_a_share_of_exactly_95_percent_is_enough():
    # 30 lone pixels, 4 apart, and the first one of them. Of a pixel's 4 corners, all of one length, 2 are 4 * index - 1
    # from the first pixel and 2 are 4 * index. The 114th of the 120 distances is the second one of 4 * 28 - 1.
    truth, prediction = np.zeros((2, 3, 123), bool)
    truth[1, 1:121:4] = True
    prediction[1, 1] = True
    assert hausdorff_distance_95(truth, prediction) == hausdorff_distance_95(prediction, truth) == 111
    # Whole numbers of corners have no rounding.
    for pixels in range(1, 61):
        truth = np.zeros((3, 4 * pixels + 3), bool)
        truth[1, 1 : 4 * pixels : 4] = True
        mask = np.zeros_like(truth)
        mask[1, 1] = True
        distances = sorted([0] * 4 + [4 * index + side for index in range(1, pixels) for side in (-1, 0)] * 2)
        assert hausdorff_distance_95(truth, mask) == distances[-(-95 * 4 * pixels // 100) - 1], pixels


def test_the_image_s_edge_is_an_outline():
    whole, left = np.ones((4, 6), bool), rectangle((4, 6), (0, 4), (0, 3))
    # The whole has 16 straight elements and 4 turns. On the part's outline lie those of its left side, of both other
    # sides up to column 3, and 2 turns; of the part's, all lie on the whole's but the 3 at its far end.
    within = (3 + 2 * 3 + 2 * TURN) + (3 + 2 * 2 + 4 * TURN)
    score = within / ((16 + 4 * TURN) + (10 + 4 * TURN))
    assert normalized_surface_distance(whole, left, 0) == pytest.approx(score)
    assert hausdorff_distance_95(whole, left) == 3
    padded, part = np.pad(whole, 3), np.pad(left, 3)
    for tolerance in (0, 1, 2):
        expected = normalized_surface_distance(padded, part, tolerance)
        assert normalized_surface_distance(whole, left, tolerance) == expected


def test_empty_masks():
    nothing, something = np.zeros((30, 40), bool), rectangle((30, 40), (3, 6), (4, 9))
    for pair in ((nothing, something), (something, nothing)):
        assert normalized_surface_distance(*pair, 1000) == 0
        assert normalized_surface_distance(*pair, 2, one_empty=0.5) == 0.5
        assert hausdorff_distance_95(*pair) == 50
        assert hausdorff_distance_95(*pair, (2, 1)) == pytest.approx(math.hypot(60, 40))
        assert hausdorff_distance_95(*pair, one_empty=math.inf) == math.inf
    assert normalized_surface_distance(nothing, nothing, 0) == 1
    assert hausdorff_distance_95(nothing, nothing) == 0
    assert math.isnan(normalized_surface_distance(nothing, nothing, 0, both_empty=math.nan))
    assert math.isnan(hausdorff_distance_95(nothing, nothing, both_empty=math.nan))


def test_identical_masks_and_a_tolerance_that_was_rounded():
    mask = rectangle((9, 9), (2, 7), (1, 4))
    assert normalized_surface_distance(mask, mask, 0) == 1 and hausdorff_distance_95(mask, mask) == 0
    # 3 * 0.1 > 0.3 in floating point.
    assert normalized_surface_distance(mask, np.roll(mask, 3, 1), 0.3, (0.1, 0.1)) == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.3)])
@pytest.mark.parametrize("kind", ["noise", "blobs", "border"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_masks_score_as_with_surface_distance(kind, spacing):
    reference = pytest.importorskip("surface_distance", reason="needs the package surface-distance")
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(0)
    for _ in range(15):
        size = random.integers(4, 40, 2)
        fields = random.normal(size=(2, *size))
        if kind != "noise":
            fields[1] += 2 * fields[0]
            fields = ndimage.gaussian_filter(fields, (0, 3, 3))
        level = 0.0 if kind == "border" else np.quantile(fields, 0.7)
        truth, prediction = fields > level
        if not (truth.any() and prediction.any()):
            continue
        expected = reference.compute_surface_distances(truth, prediction, spacing)
        found = surface_distances(truth, prediction, spacing)
        for mine, theirs in (("truth", "gt"), ("prediction", "pred")):
            np.testing.assert_allclose(
                np.sort(getattr(found, f"{mine}_lengths")), np.sort(expected[f"surfel_areas_{theirs}"]), rtol=1e-12
            )
        for tolerance in (0, 0.5, 1, 1.5, 2, 4, 8):
            score = reference.compute_surface_dice_at_tolerance(expected, tolerance)
            assert normalized_surface_distance(truth, prediction, tolerance, spacing) == pytest.approx(score)
        distance = reference.compute_robust_hausdorff(expected, 95)
        assert hausdorff_distance_95(truth, prediction, spacing) == pytest.approx(distance)


def test_bad_input_is_named():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match=r"`truth` must be a boolean mask \(H, W\), found uint8"):
        normalized_surface_distance(mask.astype("uint8"), mask, 1)
    with pytest.raises(ValueError, match=r"`prediction` must be .* \(1, 4, 4\)"):
        hausdorff_distance_95(mask, mask[None])
    with pytest.raises(ValueError, match=r"truth \(4, 4\) and prediction \(4, 3\)"):
        hausdorff_distance_95(mask, mask[:, :3])
    for spacing in ((1, 0), (1, 1, 1), (math.nan, 1)):
        with pytest.raises(ValueError, match="`spacing` must be"):
            hausdorff_distance_95(mask, mask, spacing)
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="`tolerance` must be"):
            normalized_surface_distance(mask, mask, tolerance)
    with pytest.raises(ValueError, match="`one_empty` must be 'diagonal' or a number"):
        hausdorff_distance_95(mask, mask, one_empty="largest")
