"""Reads UDIAT (breast ultrasound, "Dataset B" of Yap et al. 2018) from its folder or zip; works without TensorFlow.

The layout is `original/000001.png` and `GT/000001.png` beside the list `DatasetB.xlsx`, whose columns `Image` and
`Type` hold the number of an image and Benign or Malignant. The list saved as `DatasetB.csv` is read too, and preferred:
it needs no further package. There are no patient ids, so near-duplicates form the groups.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_semimed.data.readers.archives import table_rows
from keras_semimed.data.readers.pairs import Layout, PairSource
from keras_semimed.data.readers.source import near_duplicates
from keras_semimed.text import install

CLASSES = ("benign", "malignant")
HOW_TO_GET = (
    "UDIAT has no public download, its authors give it out for research: open "
    "https://helward.mmu.ac.uk/STAFF/M.Yap/dataset.php, fill in and sign the licence agreement of 'Breast Ultrasound "
    "Dataset B', send it to M.Yap@mmu.ac.uk or robert.marti@udg.edu, and give the zip that they then let you download, "
    "the extracted folder with original, GT and DatasetB.xlsx, or the folder that holds either"
)

_CSV, _XLSX = "DatasetB.csv", "DatasetB.xlsx"


class UdiatSource(PairSource):
    """The images of UDIAT in numeric order; see `PairSource`.

    Raises:
        FileNotFoundError: If the list of classes is missing.
        ImportError: If the list is an Excel file and openpyxl is not installed.
        ValueError: If an image is not in the list, or twice, or the list is damaged.
    """

    TITLE = "UDIAT (Dataset B)"
    HOW_TO_GET = HOW_TO_GET
    CLASSES = CLASSES
    LAYOUTS = (Layout("original", "GT", re.compile(r"([0-9]{1,9})\.png")),)

    def __init__(self, path: str | Path):
        super().__init__(path)
        self._list = _CSV if self.tree.has(_CSV) else _XLSX
        listed = self._read_list()
        for files in self.files:
            if int(files.name) not in listed:
                raise ValueError(f"{self.tree.name(self._list)} has no row for the image {files.name}; complete it")
        self._labels = {files.name: listed[int(files.name)] for files in self.files}

    def is_published(self, name: str) -> bool:
        """Whether an image of this name belongs to the published set: 1 to 163."""
        return int(name) in range(1, 164)

    def fingerprint(self) -> str:
        """Returns a hash of the names and sizes of all images and of their classes, equal for a folder and its zip."""
        return f"{super().fingerprint()}-{''.join(map(str, self._labels.values()))}"

    def label(self, name: str) -> int:
        """Returns the class of an image, an index into `CLASSES`."""
        return self._labels[name]

    def group(self, name: str) -> str:
        """Returns the near-duplicate group of an image, called after its first member; the first call decodes all."""
        return self.groups[name]

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """The near-duplicate group of each image."""
        return near_duplicates(self)

    def _read_list(self) -> dict[int, int]:
        """Class of each listed image."""
        place = self.tree.name(self._list)
        if self._list == _CSV:
            rows: Iterator[Sequence[Any]] = iter(table_rows(self.tree.read_text(_CSV, self.HOW_TO_GET), place))
        else:
            rows = iter(_sheet(self.tree.read(_XLSX, self.HOW_TO_GET), place))
        header = [str(value).strip().lower() for value in next(rows, ())]
        if not {"image", "type"} <= set(header):
            raise ValueError(f"{place}: expected the columns 'Image' and 'Type', found {header}")
        image, kind = header.index("image"), header.index("type")
        found: dict[int, int] = {}
        for number, row in enumerate(rows, start=2):
            if len(row) <= max(image, kind) or row[image] in (None, ""):
                continue
            stem = str(row[image]).strip().removesuffix(".png").removesuffix(".0")
            label = str(row[kind]).strip().lower()
            if not re.fullmatch("[0-9]{1,9}", stem) or label not in CLASSES:
                raise ValueError(
                    f"{place}, row {number}: expected the number of an image and Benign or Malignant, found "
                    f"{row[image]!r} and {row[kind]!r}"
                )
            if found.setdefault(int(stem), CLASSES.index(label)) != CLASSES.index(label):
                raise ValueError(f"{place}, row {number}: image {stem} has two classes; keep one")
        return found


def _sheet(content: bytes, place: str) -> Iterable[Sequence[Any]]:
    """Rows of the first sheet of an Excel file."""
    import zipfile

    try:
        import openpyxl
    except ImportError as error:
        raise ImportError(
            f"reading {place} needs openpyxl: {install('excel')}, or save the list as {_CSV} beside it"
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{place}: not a readable Excel file ({error}); replace the file") from error
    return book.worksheets[0].iter_rows(values_only=True)
