"""Which files are predicted, and what they are called in the output."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from keras_semimed.data.folder.files import SUFFIXES, image_stem, is_image, masks_beside
from keras_semimed.prediction.output import holds_predictions


@dataclasses.dataclass(frozen=True)
class Found:
    """What files and folders hold.

    Attributes:
        images: path of each image by its name.
        others: files of the folders that are no images; hidden ones are not among them.
        masks: files of the folders that are masks by their names, beside the image that they belong to.
    """

    images: dict[str, Path]
    others: list[Path]
    masks: list[Path] = dataclasses.field(default_factory=list)


def find_images(paths: Iterable[str | Path], output: str | Path | None = None) -> dict[str, Path]:
    """Lists the images of files and folders under unique names; see `find_files`."""
    return find_files(paths, output).images


def find_files(paths: Iterable[str | Path], output: str | Path | None = None) -> Found:
    """Looks through files and folders.

    A folder is searched with its subfolders, by the suffixes of image files and the mark of DICOM, whose files often
    have no suffix. Hidden files, folders that hold predictions and masks that lie beside their images (`x_mask.png` or
    `x_mask_1.png` beside `x.png`) are passed over. A file that is named itself is taken whatever its name.

    Args:
        paths: Files and folders.
        output: Where predictions go; a folder that is not searched.

    Returns:
        The images by name, and the files that were passed over. A name is the place below the folder that was given,
        `/` between the parts. Where two arguments hold the same name, all names of both start with the argument's
        number and last part.

    Raises:
        FileNotFoundError: If a path does not exist, or none of them holds an image.
        PermissionError: If a folder cannot be looked into; it names it.
    """
    found, others, masks = [], [], []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give images or folders of images")
        if path.is_dir():
            inside = _below(path, None if output is None else Path(output).resolve())
            found.append((path, inside.images))
            others += inside.others
            masks += inside.masks
        else:
            found.append((path, {path.name: path}))
    times = Counter(name for _, images in found for name in images)
    result: dict[str, Path] = {}
    for index, (path, images) in enumerate(found):
        clash = any(times[name] > 1 for name in images)
        prefix = f"{index}_{path.resolve().name}/" if clash else ""
        result |= {prefix + name: file for name, file in images.items()}
    if not result:
        raise FileNotFoundError(
            f"no image ({', '.join(SUFFIXES)}, or DICOM without a suffix) in {', '.join(map(str, paths))}; hidden "
            "files and folders of predictions are left out"
        )
    return Found(result, others, masks)


def _below(folder: Path, output: Path | None) -> Found:
    images: list[Path] = []
    others: list[Path] = []
    masks: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        if Path(parent).resolve() == output or holds_predictions(Path(parent)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here: list[Path] = []
        for file in (Path(parent, name) for name in names if not name.startswith(".")):
            (here if is_image(file) else others).append(file)
        beside = set(masks_beside(image_stem(file) for file in here))
        masks += [file for file in here if image_stem(file) in beside]
        images += [file for file in here if image_stem(file) not in beside]
    found = {file.relative_to(folder).as_posix(): file for file in sorted(images)}
    return Found(found, sorted(others), sorted(masks))


def _refuse(error: OSError) -> None:
    """A folder that is passed over in silence would be missed by nobody."""
    raise PermissionError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error
