"""The folder that predictions go to: what is there already, and files that are whole or not there."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_semimed.evaluation.files import PARTIAL, whole_file, write_json

TABLE = "predictions.csv"
DESCRIPTION = "predict.json"
# Colours of the classes 0, 1, 2, ... in mask files and overlays: black, then easily told apart.
COLOURS = ((0, 0, 0), (255, 255, 255), (230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167))


def name_problem(name: str) -> str | None:
    """Why files cannot be called like an image; None if they can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    longest = 255 - len(f"{PARTIAL}.png")
    if max(len(os.fsencode(part)) for part in name.split("/")) > longest:
        return f"its name is too long to add a suffix; rename it to at most {longest} bytes"
    return None


class OutputFolder:
    """Holds masks, overlays and the table of one model; goes on with what an interrupted run left.

    Args:
        path: The folder.
        description: What the predictions depend on: model and settings.
        columns: Columns of the table, `file` first.
        overwrite: Begin anew where there are predictions already.

    Raises:
        FileExistsError: If the folder holds predictions of another model or other settings, or files that are not
            predictions, and `overwrite` is not given.
    """

    def __init__(self, path: Path, description: Mapping[str, Any], columns: Sequence[str], overwrite: bool = False):
        self.path = path
        self.columns = list(columns)
        record = path / DESCRIPTION
        if overwrite:
            self._forget()
        elif record.exists():
            _check_same(record, description)
        elif path.exists() and any(path.iterdir()):
            raise FileExistsError(
                f"{path} is not empty and holds no predictions of this command; give another --output or --overwrite"
            )
        path.mkdir(parents=True, exist_ok=True)
        write_json(record, description)
        self.done = self._read_table()

    def _forget(self) -> None:
        """Removes the table and the pictures that it lists, so that none of another model is left beside new ones."""
        for name in self._rows():
            for picture in (self.mask(name), self.overlay(name)):
                if picture.resolve().is_relative_to(self.path.resolve()):
                    picture.unlink(missing_ok=True)
        (self.path / TABLE).unlink(missing_ok=True)

    def _rows(self) -> dict[str, dict[str, str]]:
        """Whole lines of the table, by image; none without a table."""
        table = self.path / TABLE
        if not table.exists():
            return {}
        text = table.read_bytes()
        whole = io.StringIO(text[: text.rfind(b"\n") + 1].decode(), newline="")
        return {row["file"]: row for row in csv.DictReader(whole) if row.get("file")}

    def _read_table(self) -> dict[str, dict[str, str]]:
        """Rows whose files are there; a line that was cut off when the process died is dropped."""
        has_masks = "mask_uncertainty" in self.columns
        rows = {name: row for name, row in self._rows().items() if not has_masks or self.mask(name).exists()}
        with whole_file(self.path / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
        return rows

    def mask(self, name: str) -> Path:
        """Where the mask of an image is."""
        return self.path / "masks" / f"{name}.png"

    def overlay(self, name: str) -> Path:
        """Where the overlay of an image is."""
        return self.path / "overlays" / f"{name}.png"

    def save_pictures(self, name: str, mask: np.ndarray | None, overlay: np.ndarray | None) -> None:
        """Writes the pictures of one image; its row comes afterwards, so that a row means whole files."""
        if overlay is not None:
            _write(Image.fromarray(overlay), self.overlay(name))
        if mask is not None:
            picture = Image.fromarray(mask)
            picture.putpalette([value for colour in COLOURS for value in colour])
            _write(picture, self.mask(name))

    def add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends the rows of images whose pictures are there."""
        with (self.path / TABLE).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)


def _write(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        picture.save(temporary, "PNG", compress_level=1)


def _check_same(record: Path, description: Mapping[str, Any]) -> None:
    found = json.loads(record.read_text(encoding="utf-8"))
    for key, value in description.items():
        if found.get(key) != value:
            raise FileExistsError(
                f"{record.parent} holds predictions with {key}={found.get(key)!r}, now it is {value!r}; give another "
                "--output, or --overwrite"
            )
