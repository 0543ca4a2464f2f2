"""Which file an export means by the name of an image."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from keras_semimed.data.folder.files import SUFFIXES, image_stem, is_image, printable

_UPLOAD = re.compile(r"[0-9a-f]{8}-")
_JOINED = "__"


class ImageFiles:
    """The image files below a folder, found by the names that tools have for them.

    Args:
        folder: The folder, which is searched with its sub-folders; hidden files and folders are passed over.
        without: A folder that is not searched.

    Raises:
        FileNotFoundError: If there is no such folder or no image in it.
    """

    def __init__(self, folder: str | Path, without: Path | None = None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; give the one that holds the images")
        found = sorted(_below(self.folder, without))
        self.names = {_plain(file.relative_to(self.folder).as_posix()): file for file in found}
        """The files by their path in the folder."""
        if not found:
            raise FileNotFoundError(f"{folder} holds no image ({', '.join(SUFFIXES)}, or DICOM); put the images there")
        self._by_last: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        for name in self.names:
            folders, flat = PurePosixPath(name).parent.parts, flat_name(name)
            places: dict[str, tuple[str, ...]] = {each: () for each in _called(flat)}
            places |= {each: folders for each in _called(_last(name))}
            for last, place in places.items():
                self._by_last[last].append((name, place))

    def find(self, name: str, where: str, base: Path | None = None) -> str | None:
        """Finds the file that an export means.

        That is the one of that path in the folder; else the one whose path ends with it, or that it ends with; the
        folders of both never contradict each other. Label Studio's `1a2b3c4d-` of an uploaded file may stand before
        it, and sub-folders may be joined as `flat_name` does.

        Args:
            name: As the export has it.
            where: What errors call it.
            base: The folder that the name is relative to, where the tool has one.

        Returns:
            Its path in the folder; None if there is none.

        Raises:
            ValueError: If there are several, or the name leads out of the folder.
        """
        name = _plain(name.replace("\\", "/"))
        if ".." in PurePosixPath(name).parts:
            name = self._inside(name, where, base)
        if name in self.names:
            return name
        candidates = self._matching(name)
        exact = [candidate for candidate in candidates if _last(candidate) == _last(name)]
        candidates = exact or candidates
        if not candidates and (upload := _UPLOAD.match(_last(name))):
            folders = name[: -len(_last(name))]
            candidates = self._matching(folders + _last(name)[upload.end() :])
        if len(candidates) > 1:
            raise ValueError(
                f"{where}: {name!r} may be {candidates[0]} or {candidates[1]} in {self.folder}; rename one"
            )
        return candidates[0] if candidates else None

    def _matching(self, name: str) -> list[str]:
        """Files that may be called like the last part of a name, and whose folders do not contradict it."""
        parts = PurePosixPath(name).parent.parts
        found = []
        for candidate, own in self._by_last.get(_last(name), ()):
            shared = min(len(own), len(parts))
            if own[len(own) - shared :] == parts[len(parts) - shared :]:
                found.append(candidate)
        return found

    def _inside(self, name: str, where: str, base: Path | None) -> str:
        """A name that goes up through folders, as a path in the folder."""
        root = self.folder.resolve().as_posix()
        path = posixpath.normpath(posixpath.join((base or self.folder).resolve().as_posix(), name))
        if not path.startswith(f"{root}/"):
            raise ValueError(
                f"{where}: names {name!r}, which lies outside of {self.folder}; give the folder of the images"
            )
        return path[len(root) + 1 :]


def flat_name(name: str) -> str:
    """Returns the name of an image in a folder without sub-folders: `P1/a.png` is `P1__a.png`."""
    return name.replace("/", _JOINED)


def unique_stems(names: Iterable[str]) -> dict[str, str]:
    """Returns what each image is called without its suffix in a folder without sub-folders.

    Raises:
        ValueError: If two would be called alike.
    """
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(image_stem(Path(flat_name(name))), name)
        if other != name:
            raise ValueError(f"{name} and {other} would have the same name but for the suffix; rename one")
    return {name: stem for stem, name in taken.items()}


def _below(folder: Path, without: Path | None) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        if without is not None and Path(parent).resolve() == without.resolve():
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(parent, name) for name in names if not name.startswith(".")):
            if is_image(file):
                if printable(file.name) != file.name:
                    raise ValueError(
                        f"{printable(file)}: its name is not valid UTF-8, or holds control characters; rename it"
                    )
                yield file


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).removeprefix("./").lstrip("/")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _called(name: str) -> set[str]:
    """What tools call a file: by its name, without the suffix, or as Label Studio does after the digits in front."""
    return {name, image_stem(Path(name)), re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))}
