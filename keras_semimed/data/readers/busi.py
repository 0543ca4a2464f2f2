"""Reads BUSI (breast ultrasound, Al-Dhabyani et al. 2020) from its folder or zip; works without TensorFlow.

The layout is `<class>/<class> (N).png` with one to three masks `<class> (N)_mask.png`, `_mask_1.png`, `_mask_2.png`,
one lesion each: their union is the truth. Masks come as 1-bit, RGB and RGBA files.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path, PurePosixPath

from keras_semimed.data.readers.archives import FileTree, find_zip, listed, zip_names
from keras_semimed.data.readers.source import Source, SourceFiles, near_duplicates

CLASSES = ("benign", "malignant", "normal")
COUNTS = {"benign": 437, "malignant": 210, "normal": 133}
FOLDER = "Dataset_BUSI_with_GT"
HOW_TO_GET = (
    f"download the BUSI archive (see keras_semimed.data.describe('busi')) and give the zip, the extracted {FOLDER} "
    "folder or the folder that holds either"
)

_FILE = re.compile(r"(benign|malignant|normal) \(([0-9]{1,9})\)(_mask(?:_[0-9]{1,9})?)?\.png")


class BusiSource(Source):
    """The files of BUSI in a folder or zip, in the order benign (1), benign (2), …, normal (133).

    Args:
        path: The zip, the extracted `Dataset_BUSI_with_GT` folder, or the folder that holds either.

    Raises:
        FileNotFoundError: If `path` does not exist or holds no BUSI.
        ValueError: If an image has no mask, a mask no image, or the zip is damaged.
    """

    TITLE = "BUSI"
    HOW_TO_GET = HOW_TO_GET
    CLASSES = CLASSES

    def __init__(self, path: str | Path):
        self.path = _locate(Path(path))
        if self.path.is_dir():
            files = [file for folder in listed(self.path) if folder.is_dir() for file in listed(folder)]
            root, members = "", [file.relative_to(self.path).as_posix() for file in files if file.suffix == ".png"]
        else:
            root, members = _zip_members(self.path)
        self.tree = FileTree(self.path, root)
        self.files = _pair(members, self.path)
        self.check_names()

    def is_published(self, name: str) -> bool:
        """Whether an image of this name belongs to the published set: benign (1) to (437), and so on."""
        kind, _, number = name.partition(" ")
        return int(number.strip("()")) in range(1, COUNTS[kind] + 1)

    def label(self, name: str) -> int:
        """Returns the class of an image, an index into `CLASSES`."""
        return CLASSES.index(name.partition(" ")[0])

    def group(self, name: str) -> str:
        """Returns the near-duplicate group of an image, called after its first member; the first call decodes all."""
        return self.groups[name]

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """The near-duplicate group of each image."""
        return near_duplicates(self)


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


def _pair(members: list[str], path: Path) -> list[SourceFiles]:
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
    return [SourceFiles(f"{key[0]} ({key[1]})", images[key], tuple(masks[key])) for key in sorted(images)]
