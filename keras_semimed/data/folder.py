"""Reads images and masks from a plain folder with Pillow; works without TensorFlow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from keras_semimed.data.array_checks import check_mask_values
from keras_semimed.data.arrays import ImageSet, SemiSupervisedBatches
from keras_semimed.data.images import read_grey, read_image, resize_image, resize_mask
from keras_semimed.data.progress import progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def from_folder(
    path: str | Path,
    image_size: int = 224,
    channels: int = 3,
    num_classes: int = 2,
    batch_size: int = 8,
    unlabeled_batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
) -> SemiSupervisedBatches:
    """Reads a folder into batches for `fit`.

    The layout is `labeled/images/NAME.png`, `labeled/masks/NAME.png` (same stem), optionally `labels.csv` with the
    columns `file,class` (one row an image of `labeled/images`), and `unlabeled/NAME.png`. Without `labeled/masks` a
    `labels.csv` is needed. A mask holds class indices and 255 = ignore; with two classes it may also hold only 0
    and 255, and 255 is the lesion then.

    Args:
        path: The folder.
        image_size: Height and width that every image is resized to, in pixels.
        channels: 3 for colour (grey is repeated), 1 for grey.
        num_classes: Number of mask classes, background included.
        batch_size: Labelled images a batch.
        unlabeled_batch_size: Unlabelled images a batch. None means `batch_size`.
        steps_per_epoch: Batches an epoch. None means one pass over the unlabelled images.
        seed: Seed of the order.

    Raises:
        FileNotFoundError: If a folder or a mask is missing.
        ValueError: If a file is damaged, a mask has another size than its image or values that are not classes, or
            `labels.csv` does not fit the images. The message names the file.
    """
    path = Path(path)
    files = _image_files(path / "labeled" / "images")
    labels, class_names = _read_labels(path / "labels.csv", files)
    masks_folder = path / "labeled" / "masks"
    masks = _read_masks(files, masks_folder, image_size, num_classes) if masks_folder.is_dir() else None
    if masks is None and labels is None:
        raise FileNotFoundError(f"{path} has neither labeled/masks nor labels.csv; give at least one of them")
    labeled = ImageSet(
        names=[file.stem for file in files],
        images=_read_images(files, image_size, channels),
        masks=masks,
        labels=labels,
        class_names=class_names,
        num_classes=num_classes,
    )
    others = _image_files(path / "unlabeled")
    unlabeled = ImageSet([file.stem for file in others], _read_images(others, image_size, channels))
    return SemiSupervisedBatches(labeled, unlabeled, batch_size, unlabeled_batch_size, steps_per_epoch, seed)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; put the images there")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(SUFFIXES)}); put the images there")
    return files


def _read_images(files: list[Path], size: int, channels: int) -> np.ndarray:
    images = (read_image(file, channels=channels) for file in progress(files, "reading images"))
    return np.stack([resize_image(image, size) for image in images])


def _read_masks(files: list[Path], folder: Path, size: int, num_classes: int) -> np.ndarray:
    by_stem = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}
    masks = []
    for file in progress(files, "reading masks"):
        if file.stem not in by_stem:
            raise FileNotFoundError(f"{file}: the image has no mask; expected {folder / file.stem}.png")
        masks.append(resize_mask(_read_mask(by_stem[file.stem], file, num_classes), size))
    return np.stack(masks)


def _read_mask(file: Path, image_file: Path, num_classes: int) -> np.ndarray:
    mask = read_grey(file)
    expected = read_image(image_file, channels=1).shape[:2]
    if mask.shape != expected:
        raise ValueError(
            f"{file}: the mask is {mask.shape} (height, width) and {image_file} {expected}; make them equal"
        )
    if num_classes == 2 and set(np.unique(mask)) <= {0, 255}:
        return (mask > 0).astype("uint8")
    check_mask_values(mask, str(file), num_classes)
    return mask


def _read_labels(file: Path, images: list[Path]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Label of each image and the sorted class names; None where there is no file."""
    if not file.is_file():
        return None, ()
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"file", "class"} <= rows[0].keys():
        raise ValueError(f"{file}: expected a header 'file,class' and one row an image")
    classes = {row["file"]: row["class"] for row in rows}
    missing = [image.name for image in images if image.name not in classes]
    extra = sorted(classes.keys() - {image.name for image in images})
    if missing or extra:
        problem = f"no row for {missing[0]!r}" if missing else f"a row for {extra[0]!r}, which is not an image"
        raise ValueError(f"{file}: {problem}; give exactly one row an image of labeled/images")
    names = tuple(sorted(set(classes.values())))
    return np.array([names.index(classes[image.name]) for image in images], "int32"), names
