"""Files that are either whole or not there, and that show when they were damaged."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

# What a spreadsheet takes for a formula, in wide letters too, a text that was made safe already among them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
PARTIAL = ".partial-"
SEAL = "sha256"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends, and goes away when it fails.

    What was written is on the disk before it takes that place, so that a machine that goes down leaves the file before.

    Args:
        path: The file to write or replace. The temporary name has the same suffixes.

    Raises:
        OSError: If it cannot be written; it names the file. The file before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL}{path.name}")
    try:
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        # h5py's own texts go over several lines.
        what = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise OSError(error.errno or errno.EIO, what, str(path)) from error


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """So that the new name is on the disk too; Windows cannot be asked to."""
    if os.name != "nt":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that shows when it was damaged: its key `sha256` is the digest of all the others."""
    plain = json.loads(json.dumps(content))
    write_json(path, {**plain, SEAL: _seal(plain)})


def read_sealed(path: str | Path, sealed: bool = True) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, without the seal.

    Args:
        path: The file.
        sealed: False: one without a seal is taken as it is.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON object, or not as it was written.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    seal = content.pop(SEAL, None)
    if seal != _seal(content) and (sealed or seal is not None):
        raise ValueError(f"{path} is damaged or was changed by hand: it is not as it was written")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_arrays(path: str | Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file.

    Args:
        path: The file.
        names: Those that it must have.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged, or lacks one of them; it names the file.
    """
    if Path(path).is_file() and not zipfile.is_zipfile(path):  # np.load would advise to trust it
        raise ValueError(f"{path} is damaged, or no .npz file: its end is missing")
    with Path(path).open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        except Exception as error:  # zipfile, zlib and NumPy have a dozen kinds for damaged bytes
            raise ValueError(f"{path} is damaged: it is no whole .npz file ({error})") from error
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path} is another .npz file: it has no array {', '.join(missing)}")
    return arrays


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digests(folder: Path, digests: Mapping[str, str], names: Sequence[str]) -> None:
    """Compares files with what was noted of them when they were written.

    Args:
        folder: Where they lie.
        digests: SHA-256 by name; what is not named is not looked at.
        names: The files that are to be read; one that is not there is for whoever reads it.

    Raises:
        OSError: If one cannot be read.
        ValueError: That names the first one that differs.
    """
    for name in names:
        path = folder / name
        if name in digests and path.exists() and file_digest(path) != digests[name]:
            raise ValueError(f"{path} is damaged or was changed by hand: it is not as the run wrote it")


def safe_cell(value: Any) -> Any:
    """Returns a value as a table holds it: a text that a spreadsheet would run as a formula gets a `'` in front."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def cell_value(text: str) -> str:
    """Returns what `safe_cell` was given."""
    return text[1:] if text.startswith("'") and safe_cell(text[1:]) == text else text


def write_rows(file: IO[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool = True) -> None:
    """Writes rows of a table with these columns to an open file, safe for spreadsheets."""
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow([safe_cell(column) for column in columns])
    for row in rows:
        if strange := [key for key in row if key not in columns]:
            raise ValueError(f"a row has {strange[0]!r}, which is no column of {list(columns)}")
        writer.writerow([safe_cell(row.get(column, "")) for column in columns])


def read_cells(file: Iterable[str]) -> list[dict[str, Any]]:
    """Reads what `write_rows` wrote, each row as a dict of texts; None for cells that lack."""
    table = csv.DictReader(file)
    table.fieldnames = None if table.fieldnames is None else [cell_value(name) for name in table.fieldnames]
    return [{key: cell_value(text) if isinstance(text, str) else text for key, text in row.items()} for row in table]


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file with one column for each key that occurs, in the order of first occurrence."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, columns, rows)


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Reads a CSV file as one dict of strings a row.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is no table, or damaged; it names the file.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        try:
            rows = read_cells(file)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: it is no CSV table in UTF-8 ({error})") from error
    for line, cells in enumerate(rows, start=2):
        if None in cells or None in cells.values():
            raise ValueError(f"{path} has a cell too many or too few in line {line}")
    return rows
