"""Reading many files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from keras_semimed.data.progress import progress

T = TypeVar("T")
R = TypeVar("R")

# Decoding runs outside Python's lock, so threads are enough; each may hold a large image.
WORKERS = min(4, os.cpu_count() or 1)


def in_parallel(function: Callable[[T], R], items: Sequence[T], description: str) -> Iterator[R]:
    """Yields `function(item)` of every item, in order, under a progress bar.

    As many images as there are threads are in memory at a time, besides what `function` returns. The first exception
    ends the work and is raised.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from progress(pool.map(function, items), description, len(items))
