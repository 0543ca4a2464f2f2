"""A progress bar for long reads."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterates over `items` under a progress bar that is wiped at the end and stays away where no terminal is."""
    from tqdm.auto import tqdm

    if total is None and isinstance(items, Sized):
        total = len(items)
    return tqdm(items, desc=description, total=total, unit="image", leave=False, disable=None)
