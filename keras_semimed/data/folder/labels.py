"""The table of image classes and groups that may lie in a folder of images."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_semimed.data.argument_checks import MOST_NAME, alike, name_problem, plain_name
from keras_semimed.text import CONTROL, shortened

GROUPING = ("group", "patient", "patientid", "subject", "subjectid", "case", "caseid", "sequence", "video")
"""Columns that say what must stay on one side of a split, the preferred one first; case, spaces and signs aside."""
SPACING = (
    *(("spacingmm",), ("pixelspacingmm",), ("pixelsizemm",)),
    *(("spacingrowmm", "spacingcolumnmm"), ("spacingymm", "spacingxmm"), ("pixelheightmm", "pixelwidthmm")),
)
"""Columns that say how high and wide a pixel of the file is in mm: one for both, or one each; the preferred first."""
MAX_BYTES = 64 * 2**20
MOST_ROWS = 1_000_000
MOST_COLUMNS = 1000


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

    The column `class` may be missing where there is one of the others.

    Commas, semicolons or tabs separate, or what a first line `sep=;` says; the text is UTF-8, with or without a byte
    order mark.

    Raises:
        ValueError: If the text is no such table, larger than any folder needs, or a file occurs twice, or two classes
            differ in case or blanks alone; the message begins with `file`.
    """
    try:
        rows = cells_of(file)
        columns = next(rows, [])
        table = _Columns.of(columns, file)
        found: dict[str, Row] = {}
        for number, cells in enumerate(rows, start=2):
            if not cells:
                continue
            name, row = table.row(cells, f"{file}: line {number}")
            if name in found:
                raise ValueError(f"{file}: line {number} is a second row for {shortened(name)}; keep one")
            found[name] = row
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file in UTF-8 ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{file}: cannot be read as CSV ({error}); save it again") from error
    except PermissionError as error:
        raise PermissionError(f"{file}: cannot be read ({error.strerror}); change its permissions") from error
    if not found:
        raise ValueError(f"{file}: expected a header 'file,class' and one row an image")
    if twins := alike({row.label for row in found.values()}):
        first, second = sorted(twins)
        raise ValueError(
            f"{file}: the classes {first!r} and {second!r} differ in case, blanks or the form of letters alone; write "
            "one of them everywhere"
        )
    return Table(found, table.grouping, table.unread, table.label is not None)


def _text(file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"{file}: is no ordinary file; remove it")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{file}: is {size / 2**20:.0f} MiB, more than a row an image makes; replace it")
    with file.open(encoding="utf-8-sig", newline="") as stream:  # line breaks in cells stay as they are
        text = stream.read()
    if (lines := max(text.count("\n"), text.count("\r"))) > MOST_ROWS:
        raise ValueError(f"{file}: has {lines:,} lines; keep those of the images in the folder")
    return text


def cells_of(file: Path) -> Iterator[list[str]]:
    """The cells of each line, with the separator that the first line has or says.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is none, or too large; it names the file.
    """
    stream = io.StringIO(_text(file), newline="")
    first = stream.readline()
    if declared := re.fullmatch(r"sep=([^\"\r\n])\s*", first):  # as Excel writes it
        delimiter = declared[1]
    else:
        delimiter = max(",;\t", key=first.count)
        stream.seek(0)
    return csv.reader(stream, delimiter=delimiter, strict=True)


class _Columns(NamedTuple):
    """Where in a line what is read stands."""

    number: int
    file: int
    label: int | None
    group: int | None
    grouping: str | None
    spacing: dict[str, int]
    unread: list[str]

    @classmethod
    def of(cls, columns: Sequence[str], file: Path) -> _Columns:
        """Finds the columns of a header.

        Raises:
            ValueError: If there are too many, two of one name, or none for the file or the class.
        """
        if len(columns) > MOST_COLUMNS:
            raise ValueError(f"{file}: has {len(columns):,} columns; keep file, class and one for the group")
        spacing = spacing_columns(columns)
        for column in columns:
            if column and (problem := name_problem(column)):
                raise ValueError(f"{file}: the name of a column {problem}; rename {shortened(column)}")
        plain = {column_key(column): column for column in reversed(columns)}
        grouping = next((plain[name] for name in GROUPING if name in plain), None)
        if "file" not in columns or not ("class" in columns or grouping or spacing):
            found = shortened(",".join(columns)) if columns else "nothing"
            raise ValueError(
                f"{file}: expected a header 'file,class' and one row an image, found {found}; in the place of class, "
                "or beside it, there may be a patient or spacing_mm"
            )
        read = [column for column in ("file", "class", grouping, *spacing) if column is not None]
        twice = [column for column, times in Counter(columns).items() if times > 1 and column in read]
        if twice:
            raise ValueError(f"{file}: has two columns {twice[0]!r}; keep one")
        place = {column: index for index, column in enumerate(columns)}
        unread = [column for column in columns if column and column not in read]
        group = None if grouping is None else place[grouping]
        measured = {column: place[column] for column in spacing}
        return cls(len(columns), place["file"], place.get("class"), group, grouping, measured, unread)

    def row(self, cells: Sequence[str], place: str) -> tuple[str, Row]:
        """The file of a line and what the line says of it.

        Raises:
            ValueError: If it says nothing that can be read; the message begins with `place`.
        """
        if len(cells) != self.number:
            raise ValueError(f"{place} has not as many columns as the header; correct it")
        for cell in cells:
            if len(cell) > MOST_NAME:
                raise ValueError(f"{place} holds a value of {len(cell):,} characters; shorten it")
            if CONTROL.search(cell):
                raise ValueError(f"{place} holds control characters; remove them")
        name = unicodedata.normalize("NFC", cells[self.file].strip().replace("\\", "/"))
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{place} names {shortened(name)}, which lies outside the folder; name files inside")
        label, group = "" if self.label is None else plain_name(cells[self.label]), None
        if self.group is not None and not (group := plain_name(cells[self.group])):
            raise ValueError(f"{place} has no {self.grouping}; fill it in or remove the column")
        for value in (label, group):
            if value and (problem := name_problem(value)):
                raise ValueError(f"{place}: {shortened(value)} {problem}; correct it")
        measured = {column: cells[index] for column, index in self.spacing.items()}
        return name, Row(label, group, _spacing(measured, tuple(measured), place))


def column_key(column: str | None) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", column or "").lower()


def spacing_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of `SPACING` that a table has: the one of both sides, or those of height and width; empty if none."""
    plain = {column_key(column): column for column in reversed(columns)}
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
