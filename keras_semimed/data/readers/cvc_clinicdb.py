"""Reads CVC-ClinicDB (colonoscopy polyps, Bernal et al. 2015) from its folder or zip; works without TensorFlow.

The layout is `Original/<frame>.tif` and `Ground Truth/<frame>.tif`, as released, or the same with PNG files. Where an
archive has both (as folders `TIF` and `PNG`), the TIFF files are read. Some masks hold grey values between 0 and 255:
above 127 is polyp. Frames of one sequence are nearly the same picture, so the sequence is the group of an image.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import re

from keras_semimed.data.readers.pairs import Layout, PairSource

HOW_TO_GET = (
    "download CVC-ClinicDB (see keras_semimed.data.describe('cvc_clinicdb')) and give the zip, the extracted "
    "CVC-ClinicDB folder or the folder that holds either"
)


class CvcClinicDbSource(PairSource):
    """The frames of CVC-ClinicDB in the order 1, 2, …, 612; see `PairSource`."""

    TITLE = "CVC-ClinicDB"
    HOW_TO_GET = HOW_TO_GET
    LAYOUTS = (
        Layout("Original", "Ground Truth", re.compile(r"0*([0-9]{1,9})\.tiff?")),
        Layout("Original", "Ground Truth", re.compile(r"0*([0-9]{1,9})\.png")),
    )

    def is_published(self, name: str) -> bool:
        """Whether an image of this name belongs to the published set: 1 to 612."""
        return int(name) in range(1, _sequences()[-1][2] + 1)

    def group(self, name: str) -> str:
        """Returns the sequence of a frame, such as `"sequence_07"`.

        Raises:
            ValueError: If the set has no such frame.
        """
        return f"sequence_{sequence(int(name)):02d}"


def sequence(frame: int) -> int:
    """Returns the sequence, 1 to 29, that a frame, 1 to 612, belongs to.

    Raises:
        ValueError: If the set has no such frame.
    """
    for number, first, last in _sequences():
        if first <= frame <= last:
            return number
    raise ValueError(f"frame {frame} is in no sequence of CVC-ClinicDB; expected 1 to {_sequences()[-1][2]}")


@functools.cache
def _sequences() -> list[tuple[int, int, int]]:
    """Number, first and last frame of each sequence."""
    file = importlib.resources.files("keras_semimed.data") / "published" / "cvc_clinicdb_sequences.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [(int(row["sequence"]), int(row["first_frame"]), int(row["last_frame"])) for row in rows]
