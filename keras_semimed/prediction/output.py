"""The folder that predictions go to: what is there already, and files that are whole or not there."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from keras_semimed.data.exchange.classes import FILE as CLASSES_FILE
from keras_semimed.data.exchange.classes import write_classes
from keras_semimed.data.folder.files import SUFFIXES
from keras_semimed.files import PARTIAL, read_cells, whole_file, write_json, write_rows, write_table
from keras_semimed.prediction.pictures import COLOURS
from keras_semimed.text import CONTROL

TABLE = "predictions.csv"
DESCRIPTION = "predict.json"
LABELS = "labels.csv"
# Errors of writing that lie with the name of one file; others, such as a full disk, would meet the next file as well.
_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


class Unwritable(Exception):
    """The files of one image cannot be written, those of others may."""


def holds_predictions(folder: Path) -> bool:
    """Tells whether a folder is an output folder of this package."""
    record = folder / DESCRIPTION
    try:
        return record.is_file() and {"model", "image_size"} <= _description(record).keys()
    except (OSError, ValueError):
        return False


def name_problems(names: Iterable[str], pictures: bool, as_labels: bool = False) -> dict[str, str]:
    """Why rows, and pictures where there are any, cannot be called like some images."""
    names = list(names)
    stems: dict[str, str] = {}
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    problems = {}
    for name in names:
        if pictures and f"{name}.png" in folders:
            problems[name] = f"its mask would have the name of the folder {name}.png; rename one of them"
        elif (problem := _name_problem(name)) is not None:
            problems[name] = problem
        elif as_labels and (other := stems.setdefault(labels_name(name), name)) != name:
            problems[name] = f"as a labelled image it would have the name of {other}; rename one of them"
    return problems


def labels_name(name: str) -> str:
    """What an image is called in a folder of labelled images: without its suffix."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def _name_problem(name: str) -> str | None:
    if CONTROL.search(name):
        return "its name holds control characters; rename it"
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
        ValueError: If its description or its table is damaged.
    """

    def __init__(self, path: Path, description: Mapping[str, Any], columns: Sequence[str], overwrite: bool = False):
        self.path = path
        self.columns = list(columns)
        has_masks = "mask_uncertainty" in self.columns
        self._as_labels = bool(description.get("as_labels"))
        self._pictures = [self.mask, *([self.overlay] if description.get("overlays") else [])] if has_masks else []
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
        """Removes the table and the files that belong to it; others in the folder may be somebody's own."""
        try:
            as_labels = bool(_description(self.path / DESCRIPTION).get("as_labels"))
        except (OSError, ValueError):
            as_labels = False  # nobody knows whose they are
        for name in self._rows():
            for picture in (self._mask(name, as_labels), self.overlay(name)):
                if picture.resolve().is_relative_to(self.path.resolve()):
                    picture.unlink(missing_ok=True)
        for file in (TABLE, *((LABELS, CLASSES_FILE) if as_labels else ())):
            (self.path / file).unlink(missing_ok=True)

    def _rows(self) -> dict[str, dict[str, str]]:
        """Whole rows of the table, by image; none without a table. One that was cut off is dropped."""
        table = self.path / TABLE
        if not table.exists():
            return {}
        content = table.read_bytes()
        try:
            whole = io.StringIO(content[: content.rfind(b"\n") + 1].decode(), newline="")
            rows = read_cells(whole)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{table} is no table of predictions ({error}); remove it or give another --output"
            ) from error
        # A name may hold the end of a line: a row that was cut off there lacks values.
        return {row["file"]: row for row in rows if row.get("file") and None not in (*row, *row.values())}

    def _read_table(self) -> dict[str, dict[str, str]]:
        """Rows whose pictures are all there; the others leave the table."""
        rows = {
            name: row
            for name, row in self._rows().items()
            if all(picture(name).is_file() for picture in self._pictures)
        }
        if any(list(row) != self.columns for row in rows.values()):
            raise ValueError(f"{self.path / TABLE} has other columns than {self.columns}; give --overwrite")
        with whole_file(self.path / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            write_rows(file, self.columns, rows.values())
        return rows

    def mask(self, name: str) -> Path:
        """Where the mask of an image is."""
        return self._mask(name, self._as_labels)

    def _mask(self, name: str, as_labels: bool) -> Path:
        return self.path / "masks" / f"{labels_name(name) if as_labels else name}.png"

    def overlay(self, name: str) -> Path:
        """Where the overlay of an image is."""
        return self.path / "overlays" / f"{name}.png"

    def save_pictures(self, name: str, mask: np.ndarray | None, overlay: np.ndarray | None) -> None:
        """Writes the pictures of one image; its row comes afterwards, so that a row means whole files.

        Raises:
            Unwritable: If they cannot be called like the image; neither is left.
            OSError: If nothing can be written, as on a full disk.
        """
        if overlay is not None:
            _write(Image.fromarray(overlay), self.overlay(name))
        if mask is not None:
            picture = Image.fromarray(mask)
            picture.putpalette([value for colour in COLOURS for value in colour])
            try:
                _write(picture, self.mask(name))
            except Unwritable:
                if overlay is not None:
                    self.overlay(name).unlink()
                raise

    def write_labels(self, mask_class_names: Sequence[str] = ()) -> None:
        """Writes `labels.csv` of the predicted classes, as a folder of labelled images has it, and `classes.txt`.

        Args:
            mask_class_names: Names of the mask classes, background first; empty where they are not known.
        """
        if mask_class_names and self._pictures:
            write_classes(self.path, mask_class_names[1:])
        rows = self._rows().values()
        classes = [{"file": row["file"], "class": row["prediction"]} for row in rows if "prediction" in row]
        if classes:
            write_table(self.path / LABELS, classes)

    def add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends the rows of images whose pictures are there.

        Raises:
            OSError: If nothing can be written, as on a full disk.
        """
        try:
            with (self.path / TABLE).open("a", newline="", encoding="utf-8") as file:
                write_rows(file, self.columns, rows, header=False)
        except OSError as error:
            raise _stopped(self.path / TABLE, error) from error


def _write(picture: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            picture.save(temporary, "PNG", compress_level=1)
    except OSError as error:
        if error.errno in _OF_NAMES:
            raise Unwritable(f"{path} cannot be written ({error.strerror}); rename the image") from error
        raise _stopped(path, error) from error


def _stopped(path: Path, error: OSError) -> OSError:
    return OSError(f"{path} cannot be written ({error.strerror or error}); the same command goes on once it can")


def _description(record: Path) -> dict[str, Any]:
    """Reads `predict.json`."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, no JSON
        found = error
    if not isinstance(found, dict):
        raise ValueError(f"{record} is damaged; give another --output, or --overwrite")
    return found


def _check_same(record: Path, description: Mapping[str, Any]) -> None:
    found = _description(record)
    for key, value in description.items():
        if found.get(key) != value:
            raise FileExistsError(
                f"{record.parent} holds predictions with {key}={found.get(key)!r}, now it is {value!r}; give another "
                "--output, or --overwrite"
            )
