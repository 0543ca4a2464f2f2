"""Files in a folder or, unpacked or not, in a zip; works without TensorFlow."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from keras_semimed.data.images.pixels import MAX_BYTES

MAX_UNPACKED = 2**30  # bytes that are fine from a zip of any size
MAX_RATIO = 100
MOST_LINES = 100_000


class FileTree:
    """Files below a folder, or below a folder inside a zip; members are named by their path from there.

    Args:
        path: The folder or the zip.
        root: The folder inside the zip, `""` or ending in a slash; `""` for a folder.
    """

    def __init__(self, path: Path, root: str = ""):
        self.path = path
        self.root = root

    def name(self, member: str) -> str:
        """Returns what to call a member in errors."""
        return f"{self.path}/{self.root}{member}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Callable[[str], IO[bytes]]]:
        """Gives a function that opens a member; a zip stays open meanwhile.

        That function raises ValueError, naming the member, where a zip does not let it be read.
        """
        if self.path.is_dir():
            yield lambda member: (self.path / member).open("rb")
            return
        with zipfile.ZipFile(self.path) as archive:
            yield lambda member: self._open(archive, member)

    def _open(self, archive: zipfile.ZipFile, member: str) -> IO[bytes]:
        try:
            size = archive.getinfo(self.root + member).file_size
            if size > MAX_BYTES:
                raise ValueError(
                    f"{self.name(member)}: unpacks to {size / 2**20:.0f} MiB, more than any image; remove it"
                )
            return archive.open(self.root + member)
        except (KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # encrypted ones among them
            raise ValueError(f"{self.name(member)}: cannot be unpacked ({error}); make the zip anew") from error

    def has(self, member: str) -> bool:
        """Returns whether there is such a file."""
        if self.path.is_dir():
            return (self.path / member).is_file()
        with zipfile.ZipFile(self.path) as archive:
            return self.root + member in archive.namelist()

    def read(self, member: str, how_to_get: str) -> bytes:
        """Returns the content of a file.

        Raises:
            FileNotFoundError: If there is no such file; the message ends in `how_to_get`.
            ValueError: If the zip is damaged there.
        """
        if not self.has(member):
            raise FileNotFoundError(f"{self.name(member)} is missing; {how_to_get}")
        try:
            with self.opened() as open_member, open_member(member) as file:
                return file.read()
        except (EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.name(member)}: cannot be unpacked ({error}); download it again") from error

    def read_text(self, member: str, how_to_get: str) -> str:
        """Returns the content of a text file in UTF-8; errors as `read`.

        Raises:
            ValueError: If it is no such text.
        """
        try:
            return self.read(member, how_to_get).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.name(member)}: not a text file in UTF-8 ({error}); replace the file") from error

    def fingerprint(self, members: Sequence[str]) -> str:
        """Returns a hash of the names and sizes of `members`, the same for a folder and its zip."""
        if self.path.is_dir():
            sizes = {member: (self.path / member).stat().st_size for member in members}
        else:
            with zipfile.ZipFile(self.path) as archive:
                sizes = {member: archive.getinfo(self.root + member).file_size for member in members}
        return hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()


def listed(folder: Path) -> list[Path]:
    """Returns what lies in a folder, sorted; `glob` would pass over what cannot be looked into, without a word.

    Raises:
        PermissionError: If it cannot be looked into; it names the folder.
    """
    try:
        return sorted(folder.iterdir())
    except PermissionError as error:
        raise PermissionError(f"{folder} cannot be read ({error.strerror}); change its permissions") from error


def table_rows(text: str, place: str) -> list[list[str]]:
    """Returns the rows of a table with commas, the header first.

    Args:
        text: The table.
        place: What to call it in errors.

    Raises:
        ValueError: If it is no table, or has more lines than a published set has images.
    """
    if (lines := text.count("\n")) > MOST_LINES:
        raise ValueError(f"{place}: has {lines:,} lines, more than the set has images; replace the file")
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{place}: cannot be read as CSV ({error}); replace the file") from error


def zip_names(path: Path) -> list[PurePosixPath]:
    """Returns the members of a zip without what macOS adds; nothing is unpacked to disk.

    Raises:
        ValueError: If the zip is damaged, a member's name leads out of it, or it unpacks to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (ArithmeticError, NotImplementedError, OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable zip; download it again ({error})") from error
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise ValueError(f"{path}: the member {member.filename!r} leads out of the zip; remove it or the zip")
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > max(MAX_UNPACKED, MAX_RATIO * size):
        raise ValueError(
            f"{path}: {size / 2**20:.1f} MiB unpack to {total / 2**30:.1f} GiB, which images never do; remove the zip"
        )
    return [PurePosixPath(member.filename) for member in members if "__MACOSX" not in member.filename]


def find_zip(folder: Path, holds: Callable[[Path], bool]) -> Path | None:
    """Returns the first zip of a folder for which `holds` is true, or None.

    Raises:
        ValueError: If there is none and a zip of the folder cannot be read.
    """
    damaged = None
    for archive in sorted(folder.glob("*.zip")):
        archive = archive.resolve()  # errors shall name the user's file, not a link to it
        try:
            if holds(archive):
                return archive
        except ValueError as error:
            damaged = damaged or error
    if damaged is not None:
        raise damaged
    return None
