"""What the benchmarks of compiled steps share: timing in turn, memory of a process of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def in_turn(
    steps: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every step, measured one after the other (a b c, b c a, ...) after a warm-up of each.

    What else the machine does then weighs on all of them alike.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for step in steps.values():
        step()
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in (*names[first:], *names[:first]):
            start = clock()
            steps[name]()
            seconds[name].append(clock() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratio(first: list[float], second: list[float]) -> str:
    """How many times as long the first takes, measured beside one another: median and range, and that of the minima."""
    ratios = [x / y for x, y in zip(first, second, strict=True)]
    spread = f"from {min(ratios):.3f} to {max(ratios):.3f}"
    return f"{statistics.median(ratios):.3f} ({spread}; of the minima {min(first) / min(second):.3f})"


def resident(entry: str) -> float:
    """Memory of this process in MiB: "VmRSS", resident now, or "VmHWM", its peak.

    `getrusage` would start from the peak of the process that started this one.
    """
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{entry}:"))
    return int(line.split()[1]) / 2**10
