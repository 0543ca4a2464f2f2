"""Which class of a mask a label of an annotation tool is."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.exchange.shapes import Export
from keras_semimed.files import whole_file
from keras_semimed.text import CONTROL

FILE = "classes.txt"
"""Names of the classes of a folder's masks from 1 on, a line each."""
BACKGROUND = "background"
# Values of a mask of 8 bits without background and what is ignored.
_MOST = 254


@dataclass(frozen=True)
class Classes:
    """The classes of masks, and the labels that stand for them.

    Args:
        names: Names of the classes 1, 2, ...
        labels: The class of each label; 0 is background and 255 is ignored.
        left_out: Labels whose annotations are not used.
    """

    names: tuple[str, ...]
    labels: dict[str, int]
    left_out: frozenset[str] = frozenset()


def parse_classes(
    declared: Sequence[str] | None,
    ignore: str | None = None,
    leave_out: Iterable[str] = (),
    export: Export | None = None,
) -> Classes:
    """Settles which class each label is.

    Args:
        declared: Names of the classes 1, 2, ..., as `"lesion"`, or `"lesion=benign,malignant"` for one of several
            labels. None takes the labels of the export that are used, in the order in which it declares them, or by
            the alphabet where it declares none.
        ignore: The label whose pixels are ignored, 255 in masks.
        leave_out: Labels whose annotations are not used.
        export: Needed without `declared`.

    Raises:
        ValueError: If a label stands for two classes, or there are none.
    """
    left_out = frozenset(map(_plain, leave_out))
    apart = left_out | ({_plain(ignore)} if ignore is not None else set())
    if declared is None:
        declared = [name for name in _found(export) if name not in apart and name != BACKGROUND] if export else []
        parts = [(name, [name]) for name in declared]
    else:
        parts = [(_plain(name), [_plain(each) for each in (of or name).split(",")]) for name, _, of in _split(declared)]
    names = [name for name, _ in parts]
    if not names or len(names) > _MOST or not all(names):
        raise ValueError(f"there must be 1 to {_MOST} classes, found {len(names)}; name them with --classes")
    labels = {BACKGROUND: 0} if ignore != BACKGROUND else {}
    for value, (_, stands) in enumerate(parts, start=1):
        for label in stands:
            if (label in apart or labels.get(label, value) != value) and label != BACKGROUND:
                raise ValueError(f"the label {label!r} stands for two things; name it once")
            labels[label] = value
    if len(set(names)) < len(names):
        raise ValueError(f"the class {Counter(names).most_common(1)[0][0]!r} is named twice; name it once")
    if ignore is not None:
        labels[_plain(ignore)] = IGNORE
    return Classes(tuple(names), labels, left_out)


def _split(declared: Sequence[str]) -> list[tuple[str, str, str]]:
    return [name.partition("=") for name in declared]


def _found(export: Export) -> list[str]:
    """The labels that are used, in order."""
    used = {_plain(annotation.label) for image in export.images for annotation in image.annotations}
    declared = list(dict.fromkeys(map(_plain, export.labels)))
    return [name for name in declared if name in used] + sorted(used - set(declared))


def _plain(label: str) -> str:
    return unicodedata.normalize("NFC", label).strip()


def class_of(label: str, where: str, classes: Classes) -> int | None:
    """Returns the class of a label, None where it is left out.

    Raises:
        ValueError: If it is none of them.
    """
    label = _plain(label)
    if label in classes.left_out:
        return None
    if label not in classes.labels:
        known = ", ".join(map(repr, classes.labels))
        raise ValueError(
            f"{where}: the label {label!r} is none of {known}; name it with --classes, --ignore or --leave-out"
        )
    return classes.labels[label]


def read_classes(folder: Path) -> tuple[str, ...] | None:
    """Returns the names that `classes.txt` of a folder holds, None without one; ValueError if it is no such file."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error}); write the name of a class on each line") from error
    if not names or any(CONTROL.search(name) for name in names):
        raise ValueError(f"{file}: must hold the name of a class on each line, found {names}; write them there")
    return names


def write_classes(folder: Path, names: Sequence[str]) -> None:
    """Writes what `read_classes` reads."""
    with whole_file(folder / FILE) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
