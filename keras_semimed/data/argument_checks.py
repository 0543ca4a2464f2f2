"""Checks of what is said about images and batches: sizes, counts, ranges, names of classes; needs no Keras."""

from __future__ import annotations

import math
import numbers
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.cache import machine_memory
from keras_semimed.text import CONTROL, shortened

MAX_SIDE = 7071
"""Pixels; a square of that side is as large as the largest image that is read."""
MOST_BATCHES = 2**31 - 1
MOST_NAME = 1000
"""Characters of a name or a class."""


def check_count(argument: str, value: Any, least: int = 1, most: int | None = None, unit: str = "") -> None:
    """Raises ValueError unless a value is a whole number from `least` to `most`.

    Args:
        argument: What it is called.
        value: What was given.
        least: The least that there may be.
        most: The most that there may be; None for no limit.
        unit: What is counted, in the plural, such as `"pixels"`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"`{argument}` must be a whole number, found {shortened(value)}")
    value = int(value)
    found = f"found {value}" if abs(value) < 10**12 else f"found a number of {len(str(abs(value)))} digits"
    if value < least:
        one = f" {unit.removesuffix('s') if least == 1 else unit}" if unit else ""
        wanted = f"at least {least}{one}" if least else "0 or more"
        raise ValueError(f"`{argument}` must be {wanted}, {found}")
    if most is not None and value > most:
        raise ValueError(f"`{argument}` must be at most {most:,}{f' {unit}' if unit else ''}, {found}")


def check_image_size(value: Any) -> None:
    """Raises ValueError unless a value is the side of a square image, in pixels."""
    check_count("image_size", value, 1, MAX_SIDE, "pixels")


def check_num_classes(value: Any) -> None:
    """Raises ValueError unless a value is a number of mask classes, the background included."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) < 2:
        raise ValueError(f"`num_classes` must be at least 2, background included, found {value}")
    check_count("num_classes", value, 2, IGNORE, "classes, as 255 is what is ignored")


def check_intensity_range(limits: Any) -> tuple[float, float]:
    """Returns two finite numbers, black below white, as they are.

    Raises:
        ValueError: If the limits are anything else, or lie closer or farther apart than pixels can tell.
    """
    given = list(limits) if isinstance(limits, Sequence | np.ndarray) and not isinstance(limits, str | bytes) else []
    if len(given) == 2 and all(isinstance(x, numbers.Real) and not isinstance(x, bool | np.bool_) for x in given):
        try:
            low, high = (float(value) for value in given)
        except OverflowError:
            low = high = math.inf
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            width = np.float32(high) - np.float32(low)
        if np.isfinite(width) and width > 0:
            return low, high
    raise ValueError(f"`intensity_range` must be (value of black, larger value of white), found {shortened(limits)}")


def check_class_names(argument: str, names: Any) -> tuple[str, ...]:
    """Returns names of classes in the composed form of Unicode, without blanks around them.

    Raises:
        ValueError: If they are no names, or two of them are alike but for case, blanks or the form of Unicode.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(
            f"`{argument}` must be several names, such as ('benign', 'malignant'), found {shortened(names)}"
        )
    found = []
    for name in names:
        if not isinstance(name, str) or (problem := name_problem(name)):
            what = "is no text" if not isinstance(name, str) else problem
            raise ValueError(f"`{argument}`: the name {shortened(name)} {what}; give another one")
        found.append(plain_name(name))
    if twins := alike(found):
        raise ValueError(f"`{argument}`: {twins[0]!r} and {twins[1]!r} are one name; give each class a name of its own")
    return tuple(found)


def plain_name(name: str) -> str:
    """Returns a name in the composed form of Unicode, without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def name_problem(name: str) -> str | None:
    """What keeps a text from being the name of a class or a group; None if it can be."""
    if not name.strip():
        return "is empty"
    if len(name) > MOST_NAME:
        return f"is longer than {MOST_NAME:,} characters"
    return "holds control characters or line breaks" if CONTROL.search(name) or "\n" in name or "\t" in name else None


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns two entries that are one name but for case, blanks or the form of Unicode, or None."""
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def check_batch(argument: str, images: int, shape: Sequence[int]) -> None:
    """Raises ValueError for a batch that cannot be held: as numbers of 32 bits it is larger than the memory.

    Args:
        argument: What the number of images is called.
        images: Images a batch.
        shape: Of an image, `(H, W, C)`.
    """
    needed, memory = 4 * images * math.prod(shape), machine_memory()
    if needed > memory:
        size = " x ".join(str(side) for side in shape[:2])
        raise ValueError(
            f"`{argument}`: {images} images of {size} pixels take {needed / 2**30:,.0f} GiB, and the machine has "
            f"{memory / 2**30:,.0f}; give fewer"
        )
