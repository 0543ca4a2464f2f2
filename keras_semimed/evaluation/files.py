"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends, and goes away when it fails.

    Args:
        path: The file to write or replace. The temporary name has the same suffixes.
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file with one column for each key that occurs, in the order of first occurrence."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Reads a CSV file as one dict of strings a row."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
