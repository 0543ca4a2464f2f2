"""Reads images and masks from a plain folder; works without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_semimed.data.argument_checks import check_class_names
from keras_semimed.data.arrays import ImageSet, mention_vanished
from keras_semimed.data.cache import Stack, memory_limit
from keras_semimed.data.folder.files import (
    FolderFiles,
    ImageFile,
    find_folder_files,
    find_image_files,
    picture_digest,
    same_pictures,
)
from keras_semimed.data.images import read_values
from keras_semimed.data.images.letterbox import Fitted, present
from keras_semimed.data.images.mask_values import FoundValues, Key, MaskValues, found_values, in_words, settled
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.data.parallel import in_parallel
from keras_semimed.text import one_line


@dataclass(frozen=True)
class Folder:
    """What a folder holds."""

    labeled: ImageSet
    """Images with masks, labels (with `class_names`) or both, and groups where `labels.csv` has them."""
    unlabeled: ImageSet | None
    """Images without targets; None where the folder has no `unlabeled`, which must have been allowed."""
    test: ImageSet | None
    """Images that are only evaluated on; None where the folder has no `test`."""
    mask_values: MaskValues | None
    """How mask files were turned into classes; None where there are none."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the image classes; label `i` is `class_names[i]`."""
        return tuple(self.labeled.class_names)


def read_folder(
    path: str | Path,
    image_size: int = 224,
    channels: int = 3,
    num_classes: int | None = None,
    mask_values: Mapping[Key, int] | None = None,
    class_names: Sequence[str] | None = None,
    intensity_range: tuple[float, float] | None = None,
    keep_aspect: bool = False,
    mask_name: str = "{}",
    mask_class_names: Sequence[str] | None = None,
    need_unlabeled: bool = True,
) -> Folder:
    """Reads a folder of PNG, JPEG, TIFF, BMP and single-frame DICOM files and prints what it found.

    The images of a part are kept in memory or, where they take more than a twelfth of it, in a temporary file; a line
    says which.

    The layout is

        labeled/images/NAME.png    labeled/masks/NAME.png     (same stem; any of the formats; or train/ for labeled/)
        unlabeled/NAME.jpg                                    (images only)
        test/images/NAME.png       test/masks/NAME.png        (if there is a test part)
        labels.csv                                            (file, class and, if known, group or patient, spacing_mm)

    Without `labeled/masks` a `labels.csv` is needed. Its `file` is a name or, where parts share names, a path such as
    `test/images/NAME.png`; it has a row for every labelled image, for all test images or none, and may have rows for
    unlabelled ones. `spacing_mm`, or `spacing_row_mm` and `spacing_column_mm`, say the height and width of a file's
    pixel where its DICOM header does not or is wrong. A group and spacings may stand without `class`. Hidden files and
    what operating systems leave behind are skipped; links out of the folder and folders in folders are refused.

    A mask holds class indices and 255 = ignore; with two classes it may also hold only 0 and 255, or two colours, one
    of them black. Anything else is declared by `mask_values`. `semimed check PATH` tells what is
    wrong with a folder, all at once.

    Args:
        path: The folder.
        image_size: Height and width that every image is resized to, in pixels.
        channels: 3 for colour (grey is repeated), 1 for grey.
        num_classes: Number of mask classes, background included. None means as many as `mask_values` has, and two
            without.
        mask_values: Class, or 255 = ignore, by grey value, `range` of grey values or colour, such as
            `{0: 0, 255: 1}`, `{range(128): 0, range(128, 256): 1}` or `{(0, 0, 0): 0, (255, 0, 0): 1}`. In a lossy
            mask, a JPEG, the nearest one counts. None finds out.
        class_names: The image classes in the order of their labels. None sorts those of `labels.csv`.
        intensity_range: The values of black and white in images of more than 8 bits that do not say it themselves,
            such as `(0, 4095)`.
        keep_aspect: Whether to keep the aspect ratio. What is left over is black, 255 in the masks and outside the
            `areas` of the image sets.
        mask_name: What the mask of an image is called, without its suffix: `{}` is the image's name without, `{file}`
            with its suffix, as in `"{}_mask"`, `"mask_{}"` or `"{file}"` for `case 1.tif.png`. `"img_{} -> mask_{}"`
            also says what images are called. A mask that has its image's own name, as `predict --as-labels` calls
            it, is found as well.
        mask_class_names: Names of the mask classes, background first. None calls two of them background and lesion.
        need_unlabeled: Whether a folder without `unlabeled/` is refused. Without, `part_folder` takes annotated images
            as unlabelled ones.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing.
        PermissionError: If a folder or its table cannot be read; it names it.
        ValueError: If a file is damaged or not what is read, a mask has another size than its image or values without
            a class, or `labels.csv` does not fit the images. The message names the file.
        ImportError: If there is DICOM and pydicom is missing.
    """
    files = find_folder_files(path, mask_name, need_unlabeled)
    rules = ReadingRules(image_size, channels, keep_aspect, intensity_range)
    rules = _settled(rules, files, num_classes, mask_values, class_names, mask_class_names)
    print(replace(rules, masks=""))
    test = _image_set(rules, files.test, "test") if files.test else None
    folder = Folder(
        labeled=_image_set(rules, files.labeled, "labeled"),
        unlabeled=_image_set(rules, [replace(file, label=None) for file in files.unlabeled], "unlabeled")
        if files.unlabeled
        else None,
        test=test,
        mask_values=rules.mask_values,
    )
    parts = {"test": test, "labeled": folder.labeled, "unlabeled": folder.unlabeled}
    pictures = {
        part: [(picture_digest(image), file) for image, file in zip(images.images, files.parts()[part], strict=True)]
        for part, images in parts.items()
        if test is not None and images is not None
    }
    if problems := same_pictures(pictures):
        raise ValueError(problems[0])
    print(_summary(files, folder))
    return folder


def read_image_folder(
    path: str | Path,
    image_size: int = 224,
    channels: int = 3,
    num_classes: int | None = None,
    mask_values: Mapping[Key, int] | None = None,
    class_names: Sequence[str] | None = None,
    intensity_range: tuple[float, float] | None = None,
    keep_aspect: bool = False,
    mask_name: str = "{}",
    mask_class_names: Sequence[str] | None = None,
) -> ImageSet:
    """Reads one set of images with what is known of them, such as those of another hospital to test on.

        images/NAME.png    masks/NAME.png    labels.csv    (or all of it below test/ or labeled/, as in `read_folder`)

    Args:
        path: The folder.
        image_size: As in `read_folder`.
        channels: As in `read_folder`.
        num_classes: As in `read_folder`.
        mask_values: As in `read_folder`.
        class_names: As in `read_folder`.
        intensity_range: As in `read_folder`.
        keep_aspect: As in `read_folder`.
        mask_name: As in `read_folder`.
        mask_class_names: As in `read_folder`.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing.
        ValueError: As `read_folder`.
    """
    files = find_image_files(path, mask_name)
    rules = ReadingRules(image_size, channels, keep_aspect, intensity_range)
    rules = _settled(rules, files, num_classes, mask_values, class_names, mask_class_names)
    return _image_set(rules, files.test, "test")


def _settled(
    rules: ReadingRules,
    files: FolderFiles,
    num_classes: int | None,
    mask_values: Mapping[Key, int] | None,
    class_names: Sequence[str] | None,
    mask_class_names: Sequence[str] | None,
) -> ReadingRules:
    """Adds what the files and the arguments of `read_folder` say of classes, before any image is decoded."""
    if files.problems:
        raise files.problems[0]
    values, found = _settle(files, mask_values, num_classes)
    names = _class_names(files, class_names)
    if values is None:
        return replace(rules, class_names=names)
    masks = tuple(mask_class_names or (("background", "lesion") if values.num_classes == 2 else ()))
    if masks and (len(masks) != values.num_classes or len(set(masks)) != len(masks)):
        raise ValueError(
            f"`mask_class_names` must be {values.num_classes} different names, background first, found {list(masks)}"
        )
    print(f"masks: {in_words(values, found, masks)}")
    return replace(rules, masks=str(values), class_names=names, mask_class_names=masks, mask_values=values)


def _image_set(rules: ReadingRules, files: list[ImageFile], part: str) -> ImageSet:
    """Reads the files of a part and joins them with what is known about them."""

    def read(file: ImageFile) -> Fitted:
        return rules.read(file.image, file.mask)

    stack, masks, own_masks, areas, classes = Stack(memory_limit("auto") / 3), [], [], [], []  # of three parts
    spacings = []
    for file, fitted in zip(files, in_parallel(read, files, f"reading {part}"), strict=True):
        stack.append(fitted.image)
        masks += [] if fitted.mask is None else [fitted.mask]
        own_masks += [] if fitted.own_mask is None else [fitted.own_mask]
        areas.append(fitted.area)
        classes.append(fitted.classes)
        spacings.append(file.spacing or fitted.spacing)
    print(f"{part}: {len(files)} images of {rules.image_size} x {rules.image_size} kept {stack.place}")
    if known := sum(each is not None for each in spacings):
        print(f"{part}: {known} of {len(files)} images say the size of their pixels in mm")
    labels = [rules.class_names.index(file.label) for file in files if file.label is not None]
    # Where some have a group, the others are a group of their own, so that a patient who is known stays on one side.
    groups = [file.group or f"image {file.name}" for file in files] if any(file.group for file in files) else None
    num_classes = rules.mask_values.num_classes if rules.mask_values is not None else 2
    found = ImageSet(
        names=[file.name for file in files],
        images=stack.rows(range(len(files))),
        masks=np.stack(masks) if masks else None,
        labels=np.array(labels, "int32") if labels else None,
        groups=groups,
        class_names=rules.class_names if labels else (),
        num_classes=num_classes,
        areas=np.stack(areas) if rules.keep_aspect else None,
        present=present(classes, num_classes) if masks else None,
        rules=rules,
        own_masks=own_masks or None,
        spacing=np.array([each or (np.nan, np.nan) for each in spacings]) if any(spacings) else None,
    )
    mention_vanished(found, part)
    return found


def _settle(
    files: FolderFiles, declared: Mapping[Key, int] | None, num_classes: int | None
) -> tuple[MaskValues | None, list[FoundValues]]:
    """The rule for the masks of the folder and what they hold; looks through them unless the rule is declared."""
    masks = [image.mask for image in (*files.labeled, *files.test) if image.mask is not None]
    if not masks:
        return None, []
    found = [] if declared is not None else list(in_parallel(_look, masks, "looking at masks"))
    return settled(declared, num_classes, found), found


def _look(mask: Path) -> FoundValues:
    return found_values(read_values(mask), str(mask))


def _class_names(files: FolderFiles, declared: Sequence[str] | None) -> tuple[str, ...]:
    """The image classes; every label is one of them."""
    labels = {image.label: image.image for image in (*files.labeled, *files.test) if image.label is not None}
    if declared is None:
        return tuple(sorted(labels))
    names = check_class_names("class_names", declared)
    for label, file in labels.items():
        if label not in names:
            raise ValueError(f"{file}: its class in labels.csv is {label!r}; expected one of {names}")
    return names


def _summary(files: FolderFiles, folder: Folder) -> str:
    counts = ", ".join(f"{len(images)} {part}" for part, images in files.parts().items() if images)
    lines = [f"{files.path}: {counts}", *files.unread()]
    if folder.labeled.labels is not None:
        numbers = np.bincount(folder.labeled.labels, minlength=len(folder.class_names))
        each = ", ".join(
            f"{index} = {name} ({number})"
            for index, (name, number) in enumerate(zip(folder.class_names, numbers, strict=True))
        )
        lines.append(f"image classes: {each} of the labeled images")
    return "\n".join(map(one_line, lines))
