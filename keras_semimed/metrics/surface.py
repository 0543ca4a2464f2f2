"""How far apart the outlines of two masks are: normalised surface distance and 95 % Hausdorff distance of one image."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

# A distance that equals the tolerance counts, and a length that equals its share, however they were rounded: 3 * 0.1 is
# within 0.3.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """The surface elements of two masks, each with its length and its distance to the other surface.

    A surface element sits at the corner where four pixels meet, some of them in the mask and some not; what lies
    outside the image is not. Its length is that of the outline in the square between the four pixel centres: the
    pixel's width or height where the outline is straight, half its diagonal where it turns, the whole diagonal where
    two pixels of the mask touch by their corners only. These are the elements of DeepMind's `surface-distance`.

    Attributes:
        from_truth: distance of each element of the truth to the nearest element of the prediction; infinite where the
            prediction is empty. Shape: `(elements,)`, in units of the spacing.
        truth_lengths: lengths of these elements. Shape: `(elements,)`.
        from_prediction: the same the other way round.
        prediction_lengths: the same the other way round.
        diagonal: diagonal of the image, which no distance exceeds.
    """

    from_truth: np.ndarray
    truth_lengths: np.ndarray
    from_prediction: np.ndarray
    prediction_lengths: np.ndarray
    diagonal: float

    @property
    def empty(self) -> int:
        """How many of the two masks are empty."""
        return (not len(self.from_truth)) + (not len(self.from_prediction))

    def normalized(self, tolerance: float, one_empty: float = 0.0, both_empty: float = 1.0) -> float:
        """See `normalized_surface_distance`."""
        if not tolerance >= 0:
            raise ValueError(f"`tolerance` must be a distance of at least 0, found {tolerance!r}.")
        if self.empty:
            return float(one_empty if self.empty == 1 else both_empty)
        limit = tolerance * (1 + _SLACK)
        within = self.truth_lengths[self.from_truth <= limit].sum()
        within += self.prediction_lengths[self.from_prediction <= limit].sum()
        return float(within / (self.truth_lengths.sum() + self.prediction_lengths.sum()))

    def hausdorff_95(self, one_empty: float | str = "diagonal", both_empty: float = 0.0) -> float:
        """See `hausdorff_distance_95`."""
        if isinstance(one_empty, str) and one_empty != "diagonal":
            raise ValueError(f"`one_empty` must be 'diagonal' or a number (math.inf is one), found {one_empty!r}.")
        if self.empty == 2:
            return float(both_empty)
        if self.empty == 1:
            return self.diagonal if isinstance(one_empty, str) else float(one_empty)
        there = _percentile(self.from_truth, self.truth_lengths, 0.95)
        return max(there, _percentile(self.from_prediction, self.prediction_lengths, 0.95))


def normalized_surface_distance(
    truth: np.ndarray,
    prediction: np.ndarray,
    tolerance: float,
    spacing: tuple[float, float] = (1.0, 1.0),
    one_empty: float = 0.0,
    both_empty: float = 1.0,
) -> float:
    """Share of both outlines that lies within a tolerance of the other one, from 0 to 1 (NSD, "surface Dice").

    `(|S_T near S_P| + |S_P near S_T|) / (|S_T| + |S_P|)` with the lengths |.| of the surface elements, see
    `SurfaceDistances`; Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy".
    The values are those of `surface-distance`, which leaves empty masks to its caller.

    Args:
        truth: Boolean. Shape: `(H, W)`.
        prediction: Boolean. Shape: `(H, W)`.
        tolerance: Largest distance that counts as near, in units of the spacing: pixels by default.
        spacing: Height and width of a pixel.
        one_empty: The value if one of the masks is empty: nothing is near.
        both_empty: The value if both are: they agree. NaN leaves such images to the caller.

    Returns:
        The share.

    Raises:
        ValueError: If a mask is not boolean or not 2-D, if their shapes differ, or if a number is out of its range.
    """
    return surface_distances(truth, prediction, spacing).normalized(tolerance, one_empty, both_empty)


def hausdorff_distance_95(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float] = (1.0, 1.0),
    one_empty: float | str = "diagonal",
    both_empty: float = 0.0,
) -> float:
    """Distance within which 95 % of each outline finds the other one (HD95), in units of the spacing.

    The larger of the two 95 % quantiles, each over the surface elements of one mask weighted by their lengths: the
    robust Hausdorff distance of `surface-distance`.

    Args:
        truth: Boolean. Shape: `(H, W)`.
        prediction: Boolean. Shape: `(H, W)`.
        spacing: Height and width of a pixel.
        one_empty: The value if one of the masks is empty: `"diagonal"`, that of the image, the largest distance there
            can be, so that means over images stay finite; or a number. `math.inf` is what `surface-distance` gives.
        both_empty: The value if both are.

    Returns:
        The distance.

    Raises:
        ValueError: If a mask is not boolean or not 2-D, if their shapes differ, or if an argument is out of its range.
    """
    return surface_distances(truth, prediction, spacing).hausdorff_95(one_empty, both_empty)


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> SurfaceDistances:
    """Measures two masks once, for any number of scores; arguments and errors as `hausdorff_distance_95`."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask.ndim != 2 or mask.dtype != bool:
            raise ValueError(
                f"`{name}` must be a boolean mask (H, W), found {mask.dtype} {mask.shape}; compare class indices with "
                "a class, one image at a time."
            )
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} must have one height and width.")
    if len(spacing) != 2 or not all(0 < size < math.inf for size in spacing):
        raise ValueError(f"`spacing` must be the height and the width of a pixel, both above 0, found {spacing!r}.")
    diagonal = math.hypot(*(side * size for side, size in zip(truth.shape, spacing, strict=True)))
    window = _bounding_box(truth | prediction)
    lengths = [_element_lengths(mask[window], spacing) for mask in (truth, prediction)]
    surfaces = [length > 0 for length in lengths]
    to_truth, to_prediction = (_distances(surface, spacing) for surface in surfaces)
    return SurfaceDistances(
        from_truth=to_prediction[surfaces[0]],
        truth_lengths=lengths[0][surfaces[0]],
        from_prediction=to_truth[surfaces[1]],
        prediction_lengths=lengths[1][surfaces[1]],
        diagonal=diagonal,
    )


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest window that holds all of `mask`; surfaces outside of it there are none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _element_lengths(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Length of the surface element at each corner of a pixel, 0 where there is none: `(H + 1, W + 1)`."""
    padded = np.pad(mask, 1).astype("int8")
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    inside = upper_left + upper_right + lower_left + lower_right
    height, width = spacing
    turn = math.hypot(height, width) / 2
    straight = np.where(upper_left == upper_right, width, np.where(upper_left == lower_left, height, 2 * turn))
    return np.select([inside % 2 == 1, inside == 2], [turn, straight], 0.0)


def _distances(surface: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Distance of every corner to the nearest one where `surface` is; infinite without any."""
    from scipy import ndimage

    if not surface.any():
        return np.full(surface.shape, np.inf)
    return ndimage.distance_transform_edt(~surface, sampling=spacing)


def _percentile(distances: np.ndarray, lengths: np.ndarray, share: float) -> float:
    """The smallest distance that at least `share` of the length does not exceed."""
    order = np.argsort(distances)
    covered = np.cumsum(lengths[order])
    index = int(np.searchsorted(covered, share * covered[-1] * (1 - _SLACK)))
    return float(distances[order[index]])
