"""The table of image classes and groups that may lie in a folder of images."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Row(NamedTuple):
    """What the table says about one image."""

    label: str
    group: str | None


def read_labels(file: Path) -> dict[str, Row]:
    """Reads a CSV with the columns `file`, `class` and, if there are groups, `group` or `patient`.

    Commas, semicolons or tabs separate; the text is UTF-8, with or without a byte order mark.

    Returns:
        The rows by their `file`, in the composed form of Unicode.

    Raises:
        ValueError: If the text is no such table or a file occurs twice; the message begins with `file`.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        table = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
        lines = list(table)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file in UTF-8 ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{file}: cannot be read as CSV ({error}); save it again") from error
    columns = table.fieldnames or []
    if not lines or not {"file", "class"} <= set(columns):
        raise ValueError(f"{file}: expected a header 'file,class' and one row an image")
    grouping = next((column for column in ("group", "patient") if column in columns), None)
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=2):
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
    return rows
