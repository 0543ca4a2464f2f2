"""A data set in one small file: decoded and resized once, to be moved to a machine that has no room or no readers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.arrays import ImageSet
from keras_semimed.files import read_arrays, whole_file

SUFFIX = ".npz"


def is_packed(place: str | Path) -> bool:
    """Whether a place is a file that `pack` wrote, by its name."""
    return Path(place).suffix == SUFFIX


def pack(images: ImageSet, data: str, path: str | Path) -> None:
    """Writes an image set as one compressed file, which `load_image_set` takes in the place of `manual_dir`.

    Images without colour are kept with one channel.

    Args:
        images: All images of a data set, as `load_image_set` gives them.
        data: Name of the data set.
        path: File to write; its name ends with `.npz`.

    Raises:
        ValueError: If `path` ends otherwise, or the images are padded.
        OSError: If the file cannot be written.
    """
    if not is_packed(path):
        raise ValueError(f"`path` must end with {SUFFIX}, found {Path(path).name!r}")
    if images.areas is not None:
        raise ValueError("`images` must fill their squares, found `areas`; load them without keep_aspect")
    pixels = np.asarray(images.images)
    grey = (pixels == pixels[..., :1]).all((1, 2, 3))
    arrays = {
        "data": np.array(data),
        "names": np.array(list(images.names)),
        "grey": grey,
        "grey_images": pixels[grey, ..., 0],
        "color_images": pixels[~grey],
        "masks": images.masks,
        "labels": images.labels,
        "groups": None if images.groups is None else np.array(list(images.groups)),
        "class_names": np.array(list(images.class_names), dtype=str),
        "num_classes": np.array(images.num_classes),
        "present": images.present,
        "spacing": images.spacing,
    }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def read_packed(path: str | Path, data: str, image_size: int) -> ImageSet:
    """Reads what `pack` wrote.

    Args:
        path: The file.
        data: Name of the data set that it is to be.
        image_size: Height and width that its images are to have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another data set or of another size.
    """
    arrays = read_arrays(path)
    if missing := {"data", "names", "grey", "grey_images", "color_images"} - arrays.keys():
        raise ValueError(f"{path} is no packed data set, it has no {min(missing)!r}; write it with recipes.pack")
    if (found := str(arrays["data"])) != data:
        raise ValueError(f"`manual_dir` must be a file of {data}, found {path}, which holds {found}")
    grey = arrays["grey"]
    size = arrays["grey_images"].shape[1:3]
    if size != (image_size, image_size):
        raise ValueError(
            f"`image_size` must be {size[0]}, the size of the images in {path}, found {image_size}; or pack them anew"
        )
    pixels = np.empty((len(grey), *size, 3), "uint8")
    pixels[grey] = arrays["grey_images"][..., None]
    pixels[~grey] = arrays["color_images"]
    groups = arrays.get("groups")
    return ImageSet(
        names=arrays["names"].tolist(),
        images=pixels,
        masks=arrays.get("masks"),
        labels=arrays.get("labels"),
        groups=None if groups is None else groups.tolist(),
        class_names=tuple(arrays["class_names"].tolist()),
        num_classes=int(arrays["num_classes"]),
        present=arrays.get("present"),
        spacing=arrays.get("spacing"),
    )


def of_classes(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The images of some classes; a label is the position in `classes`."""
    if images.labels is None or tuple(images.class_names) == classes:
        return images
    place = np.full(IGNORE + 1, -1, "int32")
    place[: len(images.class_names)] = [classes.index(name) if name in classes else -1 for name in images.class_names]
    place[IGNORE] = IGNORE
    labels = place[images.labels]
    kept = images.select([name for name, label in zip(images.names, labels, strict=True) if label >= 0])
    return dataclasses.replace(kept, labels=labels[labels >= 0], class_names=classes)
