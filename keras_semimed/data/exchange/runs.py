"""Masks as the lengths of runs, the first of background: COCO's run lengths, also as a text, and CVAT's masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_semimed.data.exchange.fields import shown


def lengths(flat: np.ndarray) -> list[int]:
    """Returns the lengths of the runs of a flat bool array, beginning with the False ones, of which there may be 0."""
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return [0, *runs] if len(flat) and flat[0] else runs


def from_lengths(runs: Sequence[Any], size: int, where: str) -> np.ndarray:
    """Returns the flat bool array of `size` that `lengths` was given.

    Raises:
        ValueError: If these are no lengths, or their sum is another one.
    """
    if not all(isinstance(run, int) and not isinstance(run, bool) and 0 <= run <= size for run in runs):
        raise ValueError(f"{where}: its runs must be whole numbers up to {size}, found {shown(runs)}; export it again")
    if sum(runs) != size:
        raise ValueError(f"{where}: its runs are of {sum(runs)} pixels, its size is of {size}; export it again")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def lengths_of_text(text: str, where: str) -> list[int]:
    """Returns the lengths that COCO's tools keep as a text; `from_lengths` tells whether they are all there.

    A character is 48 plus six bits: five of a number, the lowest first, and whether more follow. The fifth bit of the
    last one is the sign. From the fourth number on it is what is to be added to the number two places before.

    Raises:
        ValueError: If it holds another character, or ends within a number.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{where}: its run lengths hold {character!r}, which none of COCO's do; export it again")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (bits & 16) << (shift - 4)
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError(f"{where}: its run lengths end within a number; export it again")
    return runs
