"""Reads BUSI (breast ultrasound, Al-Dhabyani et al. 2020) from its folder or zip; works without TensorFlow.

The layout is `<class>/<class> (N).png` with one to three masks `<class> (N)_mask.png`, `_mask_1.png`, `_mask_2.png`,
one lesion each: their union is the truth. Masks come as 1-bit, RGB and RGBA files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np

from keras_semimed.data.archives import FileTree, find_zip, zip_names
from keras_semimed.data.duplicates import near_duplicate_groups
from keras_semimed.data.images import read_grey, read_image
from keras_semimed.data.progress import progress

CLASSES = ("benign", "malignant", "normal")
FOLDER = "Dataset_BUSI_with_GT"
HOW_TO_GET = (
    f"download the BUSI archive (see keras_semimed.data.describe('busi')) and give the zip, the extracted {FOLDER} "
    "folder or the folder that holds either"
)

_FILE = re.compile(r"(benign|malignant|normal) \((\d+)\)(_mask(?:_\d+)?)?\.png")


class BusiImage(NamedTuple):
    """One image with the union of its masks."""

    name: str
    image: np.ndarray
    """`(H, W, 3)` uint8."""
    mask: np.ndarray
    """`(H, W)` uint8, 1 = lesion."""
    label: int
    """Index into `CLASSES`."""


class BusiFiles(NamedTuple):
    """Paths, inside the folder or zip, of one image and its masks."""

    name: str
    image: str
    masks: tuple[str, ...]


class BusiSource:
    """The files of BUSI in a folder or zip, in the order benign (1), benign (2), …, normal (133).

    Args:
        path: The zip, the extracted `Dataset_BUSI_with_GT` folder, or the folder that holds either.

    Raises:
        FileNotFoundError: If `path` does not exist or holds no BUSI.
        ValueError: If an image has no mask, a mask no image, or the zip is damaged.
    """

    def __init__(self, path: str | Path):
        self.path = _locate(Path(path))
        if self.path.is_dir():
            root, members = "", [file.relative_to(self.path).as_posix() for file in self.path.glob("*/*.png")]
        else:
            root, members = _zip_members(self.path)
        self._tree = FileTree(self.path, root)
        self.files = _pair(members, self.path)
        self._members = [member for files in self.files for member in (files.image, *files.masks)]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[BusiImage]:
        with self._tree.opened() as open_member:
            for files in self.files:
                yield self._read(files, open_member)

    def fingerprint(self) -> str:
        """Returns a hash of the names and sizes of all files, the same for a folder and its zip."""
        return self._tree.fingerprint(self._members)

    def groups(self) -> list[str]:
        """Returns the near-duplicate group of each image, called after its first member; decodes every image."""
        first = near_duplicate_groups(item.image for item in progress(self, "looking for near-duplicates"))
        return [self.files[index].name for index in first]

    def _read(self, files: BusiFiles, open_member: Callable[[str], IO[bytes]]) -> BusiImage:
        def decode(reader, member):
            with open_member(member) as file:
                return reader(file, self._tree.name(member))

        image = decode(read_image, files.image)
        mask = np.zeros(image.shape[:2], bool)
        for member in files.masks:
            lesion = decode(read_grey, member)
            if lesion.shape != mask.shape:
                raise ValueError(
                    f"{self._tree.name(member)}: the mask is {lesion.shape} (height, width) and its image "
                    f"{mask.shape}; they must be equal"
                )
            mask |= lesion > 127
        return BusiImage(files.name, image, mask.astype("uint8"), CLASSES.index(files.name.partition(" ")[0]))


def _locate(path: Path) -> Path:
    """The folder with the class folders, or the zip."""
    if not path.exists():
        raise FileNotFoundError(f"manual_dir {path} does not exist; {HOW_TO_GET}")
    if path.is_file():
        return path
    for folder in (path, path / FOLDER):
        if any((folder / name).is_dir() for name in CLASSES):
            return folder
    archive = find_zip(path, lambda file: bool(_zip_members(file)[1]))
    if archive is not None:
        return archive
    raise FileNotFoundError(f"manual_dir {path} holds no BUSI (no {FOLDER} folder, no zip with one); {HOW_TO_GET}")


def _zip_members(path: Path) -> tuple[str, list[str]]:
    """The folder inside the zip that holds the class folders, and the PNG files below it."""
    names = zip_names(path)
    members = [name for name in names if name.suffix == ".png" and len(name.parts) >= 2 and name.parts[-2] in CLASSES]
    roots = {"/".join((*name.parts[:-2], "")) for name in members}
    if len(roots) > 1:
        raise ValueError(f"{path}: holds several copies of BUSI: {sorted(roots)}; keep one")
    return roots.pop() if roots else "", ["/".join(name.parts[-2:]) for name in members]


def _pair(members: list[str], path: Path) -> list[BusiFiles]:
    """Pairs every image with its masks by the exact number in the file name."""
    images: dict[tuple[str, int], str] = {}
    masks: dict[tuple[str, int], list[str]] = {}
    for member in sorted(members):
        match = _FILE.fullmatch(PurePosixPath(member).name)
        if match is None:
            continue
        key = (match[1], int(match[2]))
        if match[3]:
            masks.setdefault(key, []).append(member)
        else:
            images[key] = member
    if not images:
        raise FileNotFoundError(f"manual_dir {path} holds no file like 'benign/benign (1).png'; {HOW_TO_GET}")
    for key in sorted(images.keys() - masks.keys()):
        raise ValueError(
            f"{path}/{images[key]}: the image has no mask; expected {key[0]} ({key[1]})_mask.png beside it"
        )
    for key in sorted(masks.keys() - images.keys()):
        expected = f"{key[0]} ({key[1]}).png"
        raise ValueError(f"{path}/{masks[key][0]}: the mask has no image; expected {expected} beside it")
    return [BusiFiles(f"{key[0]} ({key[1]})", images[key], tuple(masks[key])) for key in sorted(images)]
