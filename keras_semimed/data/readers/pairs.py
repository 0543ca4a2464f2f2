"""Reads data sets of images and masks that lie in two folders under the same file names; works without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

from keras_semimed.data.readers.archives import FileTree, find_zip, listed, zip_names
from keras_semimed.data.readers.source import Source, SourceFiles


class Layout(NamedTuple):
    """Where the images and the masks of a data set lie, below the folder that holds it."""

    images: str
    masks: str
    file: re.Pattern[str]
    """Matches the names of the files that belong to the set, behind their prefix; group 1 names the image."""
    prefixes: tuple[str, str] = ("", "")
    """What the file names of images and of masks begin with."""

    def name(self, folder: str, file: str) -> str | None:
        """Returns the name of the image that a file of a folder belongs to; None if it belongs to none."""
        prefix = self.prefixes[folder == self.masks]
        match = self.file.fullmatch(file.removeprefix(prefix)) if file.startswith(prefix) else None
        return None if match is None else self.prefixes[0] + match[1]

    def other(self, folder: str, file: str) -> str:
        """Returns the path of the mask that belongs to an image file, or of the image that belongs to a mask file."""
        image, mask = self.prefixes
        if folder == self.images:
            return f"{self.masks}/{mask}{file.removeprefix(image)}"
        return f"{self.images}/{image}{file.removeprefix(mask)}"


class _Place(NamedTuple):
    """A folder that may hold the set, in the order of preference."""

    depth: int
    layout: int
    root: str


class PairSource(Source):
    """The image and mask files of a data set in a folder or zip; numbered ones come in numeric order.

    A subclass says its layouts too, the preferred one first.

    Args:
        path: The zip, the extracted folder, or a folder that holds either (up to two levels up).

    Raises:
        FileNotFoundError: If `path` does not exist or does not hold the set.
        ValueError: If an image has no mask, a mask no image, several copies are found, or the zip is damaged.
    """

    LAYOUTS: ClassVar[tuple[Layout, ...]]

    def __init__(self, path: str | Path):
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"manual_dir {path} does not exist; {self.HOW_TO_GET}")
        self.tree, layout, members = self._locate(path)
        self.path = self.tree.path
        self.files = _pair(members, layout, self.tree)
        self.check_names()

    def _locate(self, path: Path) -> tuple[FileTree, Layout, list[str]]:
        """The folder or zip with the set, its layout and its files relative to the folder that holds them."""
        members = self._members(self._names_in(path) if path.is_dir() else zip_names(path))
        key = self._choose(members, path)
        if key is not None:
            tree = FileTree(path / key.root) if path.is_dir() else FileTree(path, key.root)
            return tree, self.LAYOUTS[key.layout], members[key]
        archive = find_zip(path, self._is_in_zip) if path.is_dir() else None
        if archive is not None:
            return self._locate(archive)
        raise FileNotFoundError(f"{self._what_is_missing(members, path)}; {self.HOW_TO_GET}")

    def _names_in(self, path: Path) -> list[PurePosixPath]:
        # Two levels are enough for a parent of the largest archive; a deeper search of a home folder would take long.
        listed(path)
        folders = sorted({folder for layout in self.LAYOUTS for folder in (layout.images, layout.masks)})
        places = [place for level in ("", "*/", "*/*/") for folder in folders for place in path.glob(level + folder)]
        files = [file for place in places if place.is_dir() for file in listed(place)]
        return [PurePosixPath(file.relative_to(path).as_posix()) for file in files]

    def _members(self, names: Iterable[PurePosixPath]) -> dict[_Place, list[str]]:
        """The files that look like ones of the set, by the folder that would hold it."""
        members: dict[_Place, list[str]] = {}
        for name in names:
            for order, layout in enumerate(self.LAYOUTS):
                if len(name.parts) > 1 and name.parts[-2] in layout[:2] and layout.name(*name.parts[-2:]):
                    place = _Place(len(name.parts), order, "/".join((*name.parts[:-2], "")))
                    members.setdefault(place, []).append("/".join(name.parts[-2:]))
        return members

    def _choose(self, members: dict[_Place, list[str]], path: Path) -> _Place | None:
        """The highest place with images and masks, of the preferred layout; None if there is none."""
        whole = sorted(
            place for place, files in members.items() if len({file.partition("/")[0] for file in files}) == 2
        )
        copies = [place.root for place in whole if place[:2] == whole[0][:2]]
        if len(copies) > 1:
            raise ValueError(f"{path}: holds several copies of {self.TITLE}: {copies}; give one of them as manual_dir")
        return whole[0] if whole else None

    def _is_in_zip(self, path: Path) -> bool:
        return self._choose(self._members(zip_names(path)), path) is not None

    def _what_is_missing(self, members: dict[_Place, list[str]], path: Path) -> str:
        if not members:
            folders = " and ".join(repr(folder) for folder in self.LAYOUTS[0][:2])
            return f"manual_dir {path} holds no {self.TITLE} (no folders {folders} with its files, no zip with them)"
        place, files = min(members.items())
        present = files[0].partition("/")[0]
        lacking = next(folder for folder in self.LAYOUTS[place.layout][:2] if folder != present)
        return f"{path}/{place.root}{present} holds {len(files)} files of {self.TITLE}, {place.root}{lacking} none"


def _pair(members: list[str], layout: Layout, tree: FileTree) -> list[SourceFiles]:
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for member in sorted(members):
        folder, _, file = member.partition("/")
        name = layout.name(folder, file)
        assert name is not None  # chosen by it
        paths = images if folder == layout.images else masks
        if name in paths:
            raise ValueError(f"{tree.name(member)} and {tree.name(paths[name])} have one name; keep one of them")
        paths[name] = member
    for found, others, kind in ((images, masks, "mask"), (masks, images, "image")):
        alone = sorted(found.keys() - others.keys())
        if alone:
            other = "image" if kind == "mask" else "mask"
            more = f" ({len(alone)} such files)" if len(alone) > 1 else ""
            raise ValueError(
                f"{tree.name(found[alone[0]])}: the {other} has no {kind}{more}; "
                f"expected {layout.other(*found[alone[0]].split('/'))}"
            )
    names = sorted(images, key=lambda name: (len(name), name))  # 2 before 10
    return [SourceFiles(name, images[name], (masks[name],)) for name in names]
