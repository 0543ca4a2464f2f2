"""Tables of scores small enough to be kept with the code: five digits, compressed."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from keras_semimed.files import read_cells, read_table, whole_file, write_rows

DIGITS = 5


def packed_table(path: Path) -> Path:
    """Where the packed form of a CSV file lies."""
    return path.with_name(f"{path.name}.gz")


def pack_table(source: Path, target: Path) -> None:
    """Packs a CSV file: whole numbers and words as they are, others rounded to five digits.

    The same table always gives the same bytes.
    """
    rows = read_table(source)
    text = io.StringIO()
    write_rows(text, list(rows[0]), ({key: _rounded(key, value) for key, value in row.items()} for row in rows))
    with whole_file(packed_table(target)) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def unpack_table(path: Path) -> list[dict[str, str]]:
    """Reads the packed form of a CSV file as one dict of strings a row."""
    with gzip.open(packed_table(path), "rt", newline="", encoding="utf-8") as file:
        return read_cells(file)


def _rounded(key: str, text: str) -> str:
    if key in ("name", "weights") or text == "" or text.isdigit():
        return text
    return f"{float(text):.{DIGITS}g}"
