"""What a split leaks: pairs of images of one patient, sequence or near-duplicate group in two parts of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keras_semimed.data.arrays import ImageSet
from keras_semimed.data.splits.duplicates import THRESHOLDS, near_duplicate_pairs, thumbnails
from keras_semimed.data.splits.parts import PARTS, Split
from keras_semimed.text import one_line

_SHOWN = 5  # pairs that the text names


@dataclass(frozen=True)
class Leak:
    """Two images that belong together and lie in two parts."""

    name: str
    part: str
    other: str
    other_part: str
    """`"validation"` or `"test"`: `other` is the image that is scored."""


@dataclass(frozen=True)
class LeakReport:
    """All leaks of a split; `print(report)` shows it."""

    split_hash: str
    leaks: tuple[Leak, ...]
    scored: Mapping[str, int]
    """Number of images of the parts that are scored, `"validation"` and `"test"`."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Returns the number of pairs for every pair of parts, the scored one second; 0 where there is none.

        Labelled and unlabelled images are both trained on, so a pair across these two is no leak.
        """
        found = Counter((leak.part, leak.other_part) for leak in self.leaks)
        return {pair: found[pair] for pair in _CROSSINGS}

    def twins(self, part: str = "test") -> list[str]:
        """Returns the images of a scored part that belong together with an image of another part, sorted."""
        return sorted({leak.other for leak in self.leaks if leak.other_part == part})

    def summary(self) -> str:
        """Returns one line: how many pairs cross into the test part, and how many of its images they concern."""
        pairs = sum(leak.other_part == "test" for leak in self.leaks)
        return f"{pairs} pairs, {len(self.twins())} of {self.scored['test']} test images"

    def __str__(self) -> str:
        lines = [f"split {self.split_hash}: pairs of images that belong together and lie in two parts"]
        for (part, other), pairs in self.counts().items():
            images = len({leak.other for leak in self.leaks if (leak.part, leak.other_part) == (part, other)})
            lines.append(
                f"  {part + ' - ' + other:<23} {pairs:4d} pairs, {images} of {self.scored[other]} {other} images"
            )
        for leak in self.leaks[:_SHOWN]:
            lines.append(one_line(f"  {leak.name} ({leak.part}) ~ {leak.other} ({leak.other_part})"))
        if len(self.leaks) > _SHOWN:
            lines.append(f"  … and {len(self.leaks) - _SHOWN} more in `leaks`")
        return "\n".join(lines)


_CROSSINGS = [(part, other) for part, other in itertools.combinations(PARTS, 2) if other in ("validation", "test")]


def leak_report(split: Split, source: ImageSet | Mapping[str, str], measure: str | None = None) -> LeakReport:
    """Tells which images of a split have their like in another part.

    Args:
        split: The split.
        source: Images, or the group of each by name. Of images that have groups, these are taken, and near-duplicates
            are looked for in images without.
        measure: Look for near-duplicates by this measure, `"grey"` or `"detail"`, although the images have groups.

    Raises:
        ValueError: If an image of the split has no group or is not among the images, or there is no such measure.
    """
    part = {name: part for part in PARTS for name in getattr(split, part)}
    if isinstance(source, ImageSet):
        known: Iterable[str] = source.names
    else:
        if measure is not None:
            raise ValueError(f"measure={measure!r} needs images, and source holds groups; give the images")
        known = source
    missing = sorted(part.keys() - set(known))
    if missing:
        raise ValueError(f"source does not know {missing[0]!r} of the split; give all images that were split")
    if isinstance(source, ImageSet) and (source.groups is None or measure is not None):
        pairs = _alike(source.select(part), "grey" if measure is None else measure)
    else:
        groups = dict(zip(source.names, source.groups or (), strict=True)) if isinstance(source, ImageSet) else source
        pairs = _of_one_group(part, groups)
    leaks = []
    for pair in pairs:
        name, other = sorted(pair, key=lambda name: (PARTS.index(part[name]), name))
        if (part[name], part[other]) in _CROSSINGS:
            leaks.append(Leak(name, part[name], other, part[other]))
    scored = {value: len(getattr(split, value)) for value in ("validation", "test")}
    return LeakReport(split.hash, tuple(leaks), scored)


def _of_one_group(names: Iterable[str], groups: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    members: dict[str, list[str]] = {}
    for name in sorted(names):
        members.setdefault(groups[name], []).append(name)
    return itertools.chain.from_iterable(itertools.combinations(group, 2) for group in members.values())


def _alike(images: ImageSet, measure: str) -> Iterable[tuple[str, str]]:
    pairs = near_duplicate_pairs(thumbnails(images.images, measure), THRESHOLDS[measure])
    return ((images.names[a], images.names[b]) for a, b, _ in pairs)
