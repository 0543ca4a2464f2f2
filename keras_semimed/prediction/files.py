"""Which files are predicted, and what they are called in the output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")


def find_images(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Lists the images of files and folders under unique names.

    A folder is searched with its subfolders, by the suffixes of image files (and `.dcm`); hidden files are passed over.
    A file that is named itself is taken whatever its suffix.

    Args:
        paths: Files and folders.

    Returns:
        Path of each image by its name: its place below the folder that was given, `/` between the parts. Where two
        arguments hold the same name, all names of both start with the argument's number and last part.

    Raises:
        FileNotFoundError: If a path does not exist, or none of them holds an image.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give images or folders of images")
        found.append((path, _below(path) if path.is_dir() else {path.name: path}))
    times = Counter(name for _, images in found for name in images)
    result: dict[str, Path] = {}
    for index, (path, images) in enumerate(found):
        clash = any(times[name] > 1 for name in images)
        prefix = f"{index}_{path.resolve().name}/" if clash else ""
        result |= {prefix + name: file for name, file in images.items()}
    if not result:
        raise FileNotFoundError(f"no image ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}")
    return result


def _below(folder: Path) -> dict[str, Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    images = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
    return {file.relative_to(folder).as_posix(): file for file in images}
