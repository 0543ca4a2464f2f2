"""Files in a folder or, unpacked or not, in a zip; works without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO


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
        """Gives a function that opens a member; a zip stays open meanwhile."""
        if self.path.is_dir():
            yield lambda member: (self.path / member).open("rb")
            return
        with zipfile.ZipFile(self.path) as archive:
            yield lambda member: archive.open(self.root + member)

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
        except (zipfile.BadZipFile, zlib.error) as error:
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


def zip_names(path: Path) -> list[PurePosixPath]:
    """Returns the members of a zip without what macOS adds.

    Raises:
        ValueError: If the zip is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [PurePosixPath(name) for name in archive.namelist() if "__MACOSX" not in name]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable zip ({error}); download it again") from error


def find_zip(folder: Path, holds: Callable[[Path], bool]) -> Path | None:
    """Returns the first zip of a folder for which `holds` is true, or None.

    Raises:
        ValueError: If there is none and a zip of the folder is damaged.
    """
    archives = sorted(folder.glob("*.zip"))
    for archive in archives:
        if zipfile.is_zipfile(archive) and holds(archive):
            return archive
    damaged = [archive for archive in archives if not zipfile.is_zipfile(archive)]
    if damaged:
        raise ValueError(f"{damaged[0]}: not a readable zip; download it again")
    return None
