"""The table of image classes and groups that may lie in a folder of images."""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from keras_semimed.files import CONTROL

GROUPING = ("group", "patient", "patientid", "subject", "subjectid", "case", "caseid", "sequence", "video")
"""Columns that say what must stay on one side of a split, the preferred one first; case, spaces and signs aside."""
MAX_BYTES = 64 * 2**20


class Row(NamedTuple):
    """What the table says about one image."""

    label: str
    group: str | None


class Table(NamedTuple):
    """What a `labels.csv` says."""

    rows: dict[str, Row]
    """By their `file`, in the composed form of Unicode."""
    grouping: str | None
    """The column that the groups are from."""
    unread: list[str]
    """Columns that are not read."""


def read_labels(file: Path) -> Table:
    """Reads a CSV with the columns `file`, `class` and, if there are groups, one of `GROUPING`.

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
    if not lines or not {"file", "class"} <= set(columns):
        raise ValueError(f"{file}: expected a header 'file,class' and one row an image")
    plain = {re.sub(r"[\W_]+", "", column or "").lower(): column for column in reversed(columns)}
    grouping = next((plain[name] for name in GROUPING if name in plain), None)
    unread = [column for column in columns if column not in ("file", "class", grouping)]
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
        rows[name] = Row(line["class"].strip(), group)
    return Table(rows, grouping, unread)
