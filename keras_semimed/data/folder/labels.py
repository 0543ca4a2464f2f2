"""The table of image classes, groups and pixel spacings that may lie in a folder of images."""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from keras_semimed.files import CONTROL

GROUPING = ("group", "patient", "patientid", "subject", "subjectid", "case", "caseid", "sequence", "video")
"""Columns that say what must stay on one side of a split, the preferred one first; case, spaces and signs aside."""
SPACING = (
    *(("spacingmm",), ("pixelspacingmm",), ("pixelsizemm",)),
    *(("spacingrowmm", "spacingcolumnmm"), ("spacingymm", "spacingxmm"), ("pixelheightmm", "pixelwidthmm")),
)
"""Columns that say how high and wide a pixel of the file is in mm: one for both, or one each; the preferred first."""
MAX_BYTES = 64 * 2**20


class Row(NamedTuple):
    """What the table says about one image."""

    label: str
    """Empty where there is none."""
    group: str | None
    spacing: tuple[float, float] | None = None
    """Height and width of a pixel in mm."""


class Table(NamedTuple):
    """What a `labels.csv` says."""

    rows: dict[str, Row]
    """By their `file`, in the composed form of Unicode."""
    grouping: str | None
    """The column that the groups are from."""
    unread: list[str]
    """Columns that are not read."""
    has_classes: bool = True
    """Whether it has the column `class`."""


def read_labels(file: Path) -> Table:
    """Reads a CSV with the columns `file`, `class` and, where that is known, one of `GROUPING` and one of `SPACING`.

    The column `class` may be missing where there is one of the spacings.

    Commas, semicolons or tabs separate, or what a first line `sep=;` says; the text is UTF-8, with or without a byte
    order mark.

    Raises:
        ValueError: If the text is no such table or a file occurs twice; the message begins with `file`.
    """
    try:
        if not file.is_file():
            raise ValueError(f"{file}: is no ordinary file; remove it")
        if (size := file.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{file}: is {size / 2**20:.0f} MiB, more than a row an image makes; replace it")
        text = file.read_text(encoding="utf-8-sig")
        first, _, rest = text.partition("\n")
        if declared := re.fullmatch(r"sep=(.)\s*", first):  # as Excel writes it
            text = rest
        delimiter = declared[1] if declared else max(",;\t", key=first.count)
        lines_of_text = text.splitlines()
        table = csv.DictReader(lines_of_text, delimiter=delimiter, strict=True)
        lines = list(table)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file in UTF-8 ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{file}: cannot be read as CSV ({error}); save it again") from error
    columns = table.fieldnames or []
    spacing = spacing_columns(columns)
    has_classes = "class" in columns
    if not lines or "file" not in columns or not (has_classes or spacing):
        raise ValueError(f"{file}: expected a header 'file,class' and one row an image")
    plain = {plain_name(column or ""): column for column in reversed(columns)}
    grouping = next((plain[name] for name in GROUPING if name in plain), None)
    unread = [column for column in columns if column not in ("file", "class", grouping, *spacing)]
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=2):
        if any(isinstance(text, str) and CONTROL.search(text) for text in line.values()):
            raise ValueError(f"{file}: line {number} holds control characters; remove them")
        if None in line or None in line.values():
            raise ValueError(f"{file}: line {number} has not as many columns as the header; correct it")
        name = unicodedata.normalize("NFC", line["file"].strip().replace("\\", "/"))
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{file}: line {number} names {name!r}, which lies outside the folder; name files inside")
        if name in rows:
            raise ValueError(f"{file}: line {number} is a second row for {name!r}; keep one")
        group = line[grouping].strip() if grouping else None
        if group == "":
            raise ValueError(f"{file}: line {number} has no {grouping}; fill it in or remove the column")
        label = line["class"].strip() if has_classes else ""
        rows[name] = Row(label, group, _spacing(line, spacing, f"{file}: line {number}"))
    return Table(rows, grouping, unread, has_classes)


def plain_name(column: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", column).lower()


def spacing_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of `SPACING` that a table has: the one of both sides, or those of height and width; empty if none."""
    plain = {plain_name(column or ""): column for column in reversed(columns)}
    found = (tuple(plain[name] for name in names) for names in SPACING if all(name in plain for name in names))
    return next(found, ())


def _spacing(line: Mapping[str, str], columns: Sequence[str], where: str) -> tuple[float, float] | None:
    """Height and width of a pixel of a row; None where its cells are empty."""
    if not any(line[column].strip() for column in columns):
        return None
    values = [_millimetres(line[column].strip(), column, where) for column in columns]
    return values[0], values[-1]


def _millimetres(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"{where} has the {column} {text!r}; write the size of a pixel in mm, a number above 0 such as 0.12, or "
            "leave it empty where it is not known"
        )
    return value
