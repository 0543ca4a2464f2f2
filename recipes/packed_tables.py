"""Tables of scores small enough to be kept with the code: five digits, compressed."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
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
    # Imported late: Keras comes with it, for which help should not wait.
    from keras_semimed.evaluation.images import rows_of

    rows = read_table(source)
    known = zip(rows, rows_of(rows), strict=True)
    text = io.StringIO()
    write_rows(
        text, list(rows[0]), ({key: _rounded(row[key], values.get(key)) for key in row} for row, values in known)
    )
    with whole_file(packed_table(target)) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def unpack_table(path: Path) -> list[dict[str, str]]:
    """Reads the packed form of a CSV file as one dict of strings a row.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged; it names the file.
    """
    packed = packed_table(path)
    content = packed.read_bytes()
    try:
        rows = read_cells(io.StringIO(gzip.decompress(content).decode(), newline=""))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{packed} is damaged: it is not as it was packed ({error})") from error
    if not rows or any(None in cells or None in cells.values() for cells in rows):
        raise ValueError(f"{packed} is no packed table: it has no rows, or a cell too many or too few in one")
    return rows


def _rounded(text: str, value: str | int | float | None) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else text
