"""Checks and conversions of image, mask and label arrays; every error names the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_semimed.data.cache import DiskRows

IGNORE = 255


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError when two images have one name."""
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two images are called {name!r}; names must be unique")
        seen.add(name)


def check_images(images: np.ndarray | DiskRows, names: Sequence[str], argument: str = "images") -> None:
    """Raises ValueError unless `images` is a clean `(N, H, W, 1 or 3)` uint8 array with one image a name."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"`{argument}` must be (N, H, W, 1 or 3), found shape {images.shape}")
    if 0 in images.shape[1:3]:
        raise ValueError(f"`{argument}` must have pixels, found shape {images.shape}")
    if len(images) != len(names):
        raise ValueError(f"{argument} holds {len(images)} images for {len(names)} names; give one name an image")
    if images.dtype != np.uint8:
        check_finite(images, names, argument)
        raise ValueError(f"`{argument}` must be uint8 in 0..255, found {images.dtype}; convert, or use from_arrays")


def check_masks(masks: np.ndarray, images: np.ndarray | DiskRows, names: Sequence[str], num_classes: int) -> None:
    """Raises ValueError unless `masks` is `(N, H, W)` uint8, as large as `images`, classes or 255 only."""
    if masks.shape != images.shape[:3]:
        raise ValueError(f"`masks` must be {images.shape[:3]} as the images are (N, H, W), found shape {masks.shape}")
    if masks.dtype != np.uint8:
        raise ValueError(f"`masks` must be uint8 class indices, found {masks.dtype}; convert, or use from_arrays")
    for name, mask in zip(names, masks, strict=True):
        check_mask_values(mask, name, num_classes)


def check_mask_values(mask: np.ndarray, name: str, num_classes: int) -> None:
    """Raises ValueError when one mask holds a value that is neither a class nor 255 (ignore)."""
    wrong = (mask >= num_classes) & (mask != IGNORE)
    if wrong.any():
        values = sorted({int(value) for value in mask[wrong]})
        raise ValueError(
            f"mask of {name!r} holds {values[:5]}; expected classes 0..{num_classes - 1} or {IGNORE} (ignore): "
            "map its values to class indices"
        )


def check_labels(labels: np.ndarray, names: Sequence[str], class_names: Sequence[str]) -> None:
    """Raises ValueError unless `labels` is `(N,)` int32 of known classes, or 255 where unknown."""
    if labels.shape != (len(names),):
        raise ValueError(f"`labels` must have shape ({len(names)},), one an image, found {labels.shape}")
    if labels.dtype != np.int32:
        raise ValueError(f"`labels` must be int32, found {labels.dtype}; convert, or use from_arrays")
    outside = (labels < 0) | (labels >= len(class_names)) if class_names else labels < 0
    wrong = outside & (labels != IGNORE)
    if wrong.any():
        first = int(np.argmax(wrong))
        known = f"0..{len(class_names) - 1}, or 255 where unknown" if class_names else "0 or more"
        raise ValueError(f"label of {names[first]!r} is {labels[first]}; expected {known}")


def check_areas(areas: np.ndarray, images: np.ndarray | DiskRows, names: Sequence[str]) -> None:
    """Raises ValueError unless `areas` is `(N, 4)` int32 with 0 <= top < bottom <= H and 0 <= left < right <= W."""
    if areas.shape != (len(names), 4) or areas.dtype != np.int32:
        raise ValueError(f"`areas` must be ({len(names)}, 4) int32, found {areas.shape} {areas.dtype}")
    height, width = images.shape[1:3]
    top, left, bottom, right = areas.T
    wrong = ~((top >= 0) & (top < bottom) & (bottom <= height) & (left >= 0) & (left < right) & (right <= width))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"area of {names[index]!r} is {areas[index].tolist()}; expected top < bottom and left < right (top, left, "
            f"bottom, right) within {height} x {width} pixels"
        )


def check_spacing(spacing: np.ndarray, names: Sequence[str]) -> None:
    """Raises ValueError unless `spacing` is `(N, 2)` floats, both above 0 or both NaN (unknown)."""
    if spacing.shape != (len(names), 2) or not np.issubdtype(spacing.dtype, np.floating):
        raise ValueError(
            f"`spacing` must be ({len(names)}, 2) floats, height and width of a pixel in mm, found {spacing.shape} "
            f"{spacing.dtype}"
        )
    known = (spacing > 0) & np.isfinite(spacing)
    wrong = ~(known.all(axis=1) | np.isnan(spacing).all(axis=1))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"spacing of {names[index]!r} is {spacing[index].tolist()}; expected height and width of a pixel in mm, "
            "both above 0, or NaN twice where they are not known"
        )


def check_finite(images: np.ndarray | DiskRows, names: Sequence[str], argument: str = "images") -> None:
    """Raises ValueError naming the first image with NaN or infinity."""
    if np.issubdtype(images.dtype, np.floating):
        for name, image in zip(names, images, strict=True):
            if not np.isfinite(image).all():
                raise ValueError(f"{argument}: {name!r} holds NaN or infinity; expected values in 0..255")


def check_range(images: np.ndarray, argument: str, slack: float = 0.0) -> None:
    """Raises ValueError naming the first image whose values are not those of an image in 0..255.

    Args:
        images: `(N, ...)` of any real dtype; looked at one by one, so that no image hides behind another.
        argument: What they are called.
        slack: How far beyond 0..255 a value may lie, as resizing leaves it.
    """
    if images.dtype in (np.uint8, bool):
        return
    check_finite(images, [f"{argument}[{i}]" for i in range(len(images))], argument)
    for index, image in enumerate(images):
        if image.size == 0:
            continue
        low, high = image.min(), image.max()
        if np.issubdtype(images.dtype, np.floating) and low >= 0 and 0 < high <= 1:
            raise ValueError(f"{argument}[{index}] holds values in 0..1; expected 0..255: multiply by 255")
        if low < -slack or high > 255 + slack or low < 0 and high <= 1:
            raise ValueError(f"{argument}[{index}] holds values in {low}..{high}; expected 0..255")


def to_uint8(images: np.ndarray, argument: str) -> np.ndarray:
    """Converts images of any real dtype in 0..255 to `(N, H, W, C)` uint8, adding a channel axis to grey ones."""
    images = as_array(images, argument)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8:
        check_range(images, argument)
        images = np.rint(images).astype("uint8") if images.dtype != bool else images.astype("uint8") * 255
    check_images(images, [f"{argument}[{i}]" for i in range(len(images))], argument)
    return images


def as_array(values: Any, argument: str) -> np.ndarray:
    """Returns values as an array of real numbers.

    Raises:
        ValueError: If they are no numbers, or images of several sizes; it names the argument.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{argument}` must be one array, found arrays of several sizes; bring them to one") from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        what = array.dtype if array.ndim else type(values).__name__
        raise ValueError(f"`{argument}` must be an array of numbers, found {what}")
    return array


def shows_lesion(masks: np.ndarray) -> bool:
    """Whether a pixel of a set of masks belongs to a class above the background."""
    return any(((mask > 0) & (mask != IGNORE)).any() for mask in masks)


def ignores_inside(masks: np.ndarray) -> bool:
    """Whether 255 stands elsewhere than in whole rows and columns, where the padding of an image has it."""
    for mask in masks:
        ignored = mask == IGNORE
        padding = ignored.all(axis=1)[:, None] | ignored.all(axis=0)[None, :]
        if (ignored & ~padding).any():
            return True
    return False


def check_lesion_value(masks: np.ndarray, num_classes: int, argument: str) -> None:
    """Raises ValueError when a whole set of masks of two classes holds 255 where the lesions should be.

    255 is ignored, so such masks would score as perfect whatever is predicted.
    """
    if num_classes == 2 and not shows_lesion(masks) and ignores_inside(masks):
        raise ValueError(
            f"{argument} holds 0 and 255 alone, and {IGNORE} is what is ignored; give the lesion the value 1, as "
            "`masks // 255` does"
        )


def check_lesion(masks: np.ndarray, argument: str) -> None:
    """Raises ValueError when a whole set of masks to learn from has no pixel of a lesion."""
    if len(masks) and not shows_lesion(masks):
        raise ValueError(
            f"{argument}: no pixel of the {len(masks)} masks belongs to a class above 0, the background ({IGNORE} is "
            "ignored), so no lesion could be learnt; give masks with a lesion, or check their values"
        )


def to_masks(masks: np.ndarray, num_classes: int = 2) -> np.ndarray:
    """Converts masks of class indices, `(N, H, W)` or `(N, H, W, 1)`, to `(N, H, W)` uint8.

    A set of two classes that holds 0 and 255 alone is read as background and lesion, and a line says so.

    Raises:
        ValueError: If a value is no whole number in 0..255, or no mask shows a lesion.
    """
    masks = as_array(masks, "masks")
    if masks.ndim == 4 and masks.shape[-1] == 1:
        masks = masks[..., 0]
    with np.errstate(invalid="ignore"):  # what is lost by it is looked at below
        result = masks.astype("uint8")
    for index, (mask, converted) in enumerate(zip(masks, result, strict=True)):
        if not np.array_equal(mask, converted):
            raise ValueError(f"mask of 'images[{index}]' holds values that are not classes; expected whole 0..255")
    if result.ndim == 3 and num_classes == 2 and not shows_lesion(result) and ignores_inside(result):
        print("masks: 0 and 255 alone, read as background and lesion")
        result = (result > 0).astype("uint8")
    check_lesion(result, "masks")
    return result


def to_labels(labels: np.ndarray) -> np.ndarray:
    """Converts image classes to `(N,)` int32."""
    labels = np.asarray(labels)
    with np.errstate(invalid="ignore"):
        whole = labels.astype("int32") if labels.dtype.kind in "biuf" else np.zeros(0, "int32")
    if not np.array_equal(labels, whole):
        raise ValueError(f"`labels` must be whole numbers, found {labels.dtype} such as {labels.ravel()[:3]}")
    if whole.size and whole.max() > IGNORE:
        raise ValueError(f"label of 'images[{whole.argmax()}]' is {whole.max()}; expected 0..254, or 255 where unknown")
    return whole
