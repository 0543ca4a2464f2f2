"""Reads BUS-BRA (breast ultrasound, Gomez-Flores et al. 2024) from its folder or zip; works without TensorFlow.

The layout is `Images/bus_NNNN-x.png` and `Masks/mask_NNNN-x.png`, where x is l and r for two views of a lesion or s for
a single one, beside `bus_data.csv` and two fold files. The tables list the whole set: rows without a file are left
out. The widths and heights in the table are wrong for a few images, so the files count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_semimed.data.readers.archives import table_rows
from keras_semimed.data.readers.pairs import Layout, PairSource

CLASSES = ("benign", "malignant")
BIRADS = ("2", "3", "4", "5")
HOW_TO_GET = (
    "download BUS-BRA (see keras_semimed.data.describe('bus_bra')) and give the zip, the extracted BUSBRA folder or "
    "the folder that holds either"
)

_DATA = "bus_data.csv"
_FOLDS = {5: "5-fold-cv.csv", 10: "10-fold-cv.csv"}
_COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side")


class BusBraRecord(NamedTuple):
    """What the tables say about an image."""

    case: str
    """The patient: two views of one lesion share it."""
    label: int
    """Index into `CLASSES`, proven by biopsy."""
    birads: str
    """One of `BIRADS`."""
    histology: str
    device: str
    side: str
    """`"left"`, `"right"` or `"single"`."""
    fold_5: int
    """The published fold, 1 to 5, whose test part holds the image."""
    fold_10: int
    """The same of the ten folds."""


class BusBraSource(PairSource):
    """The images of BUS-BRA in the order of their names; see `PairSource`.

    Raises:
        FileNotFoundError: If a table is missing.
        ValueError: If an image has no row in a table, or a row holds what it should not.
    """

    TITLE = "BUS-BRA"
    HOW_TO_GET = HOW_TO_GET
    CLASSES = CLASSES
    LAYOUTS = (Layout("Images", "Masks", re.compile(r"(\d+-[lrs])\.png"), ("bus_", "mask_")),)
    TABLES = (_DATA, *_FOLDS.values())

    def __init__(self, path: str | Path):
        super().__init__(path)
        folds = {number: self._table(file, ("ID", "kFold")) for number, file in _FOLDS.items()}
        data = self._table(_DATA, _COLUMNS)
        self.records = {files.name: self._record(files.name, data, folds) for files in self.files}

    def label(self, name: str) -> int:
        """Returns the class of an image, an index into `CLASSES`."""
        return self.records[name].label

    def group(self, name: str) -> str:
        """Returns the patient of an image, such as `"case_0012"`."""
        return f"case_{int(self.records[name].case):04d}"

    def folds(self, number: int = 5) -> dict[str, int]:
        """Returns the published fold, from 1, that each image is tested in, for `keras_semimed.data.fold_split`.

        Args:
            number: 5 or 10.

        Raises:
            ValueError: If so many folds were not published.
        """
        if number not in _FOLDS:
            raise ValueError(f"number={number}, but BUS-BRA has {' and '.join(map(str, _FOLDS))} published folds")
        return {name: getattr(record, f"fold_{number}") for name, record in self.records.items()}

    def _table(self, file: str, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
        """The rows of a table by image."""
        place = self.tree.name(file)
        header, *rows = table_rows(self.tree.read_text(file, self.HOW_TO_GET), place) or [[]]
        if missing := [column for column in columns if column not in header]:
            raise ValueError(f"{place} has no column {missing[0]!r}; replace the file")
        found: dict[str, dict[str, str]] = {}
        for number, cells in enumerate(rows, start=2):
            if cells and len(cells) != len(header):
                raise ValueError(f"{place}: line {number} has not as many columns as the header; replace the file")
            row = dict(zip(header, cells, strict=False))
            found |= {row["ID"]: row} if row else {}
        return found

    def _record(
        self, name: str, data: Mapping[str, dict[str, str]], folds: Mapping[int, Mapping[str, dict[str, str]]]
    ) -> BusBraRecord:
        for file, table in ((_DATA, data), *((file, folds[number]) for number, file in _FOLDS.items())):
            if name not in table:
                raise ValueError(f"{self.tree.name(file)} has no row for the image {name}; replace the file")
        row = data[name]
        found = {number: folds[number][name]["kFold"] for number in folds}
        for file, column, value, known in (
            (_DATA, "Pathology", row["Pathology"], CLASSES),
            (_DATA, "BIRADS", row["BIRADS"], BIRADS),
            *((_FOLDS[n], "kFold", found[n], tuple(str(fold + 1) for fold in range(n))) for n in _FOLDS),
        ):
            if value not in known:
                raise ValueError(f"{self.tree.name(file)}: {column} of {name} is {value!r}, expected one of {known}")
        if not re.fullmatch("[0-9]{1,9}", row["Case"]):
            raise ValueError(f"{self.tree.name(_DATA)}: Case of {name} is {row['Case']!r}, expected a number")
        return BusBraRecord(
            case=row["Case"],
            label=CLASSES.index(row["Pathology"]),
            birads=row["BIRADS"],
            histology=row["Histology"],
            device=row["Device"],
            side=row["Side"],
            fold_5=int(found[5]),
            fold_10=int(found[10]),
        )
