"""What images of a test set have in common: the patient, who is one piece of evidence, and what they are scored by."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from keras_semimed.text import one_line

GROUP = "group"
"""Key of a row: the image's patient, sequence or near-duplicates; intervals leave out all images of one together."""
PART = "group_"
"""Begin of the keys of what images are scored by as well; the kind follows, as in `group_class` or `group_scanner`."""
TOGETHER = "Images of one group (patient, sequence, near-duplicates) stay together in intervals and tests."
UNTITLED = ("class", "set")
"""Kinds whose values say by themselves what they are."""


def group_columns(
    names: Sequence[str], groups: Sequence[str] | None, parts: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """What the rows of images say of their groups, by the names of the images.

    Args:
        names: Of the images.
        groups: One group an image; kept unless each is called like its image. One with a single image here may have
            another one in the test part of another seed.
        parts: By kind, such as `class`: a value by the image's name.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    if groups is not None and list(groups) != list(names):
        found = {name: {GROUP: group} for name, group in zip(names, groups, strict=True)}
    for kind, values in parts.items():
        for name, value in values.items():
            found[name][f"{PART}{kind}"] = value
    return found


def parts_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows by what their images have in common, such as `benign` or `scanner GE`; empty where that is not noted."""
    rows = list(rows)
    found: dict[str, list[dict[str, Any]]] = {}
    taken: dict[str, str] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key.startswith(PART)):
        kind = key.removeprefix(PART)
        for row in rows:
            if key in row:
                title = one_line(row[key] if kind in UNTITLED else f"{kind} {row[key]}")
                if taken.setdefault(title, kind) != kind:  # two columns of the same values
                    title = one_line(f"{kind} {row[key]}")
                found.setdefault(title, []).append(row)
    return found


def clusters_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Hashable]:
    """The cluster that each image is in, by its name: its group, or the image alone.

    Args:
        rows: Of one run or of several; the group of an image needs to stand in one of them only.
    """
    found: dict[str, Hashable] = {}
    for row in rows:
        if GROUP in row:
            found[row["name"]] = (GROUP, row[GROUP])
        else:
            found.setdefault(row["name"], row["name"])
    return found
