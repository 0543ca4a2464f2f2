"""Which files of a folder are images and which belong together, and what is wrong before any is decoded."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from keras_semimed.data.folder.labels import Table, read_labels
from keras_semimed.data.folder.mask_names import check_mask_name, mask_of
from keras_semimed.data.images.dicom import is_dicom
from keras_semimed.text import one_line, printable

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".pgm", ".ppm"),
    *(".dcm", ".dicom"),
)
_MASK = re.compile(r"(.+)_mask(?:_\d+)?", re.DOTALL)
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class ImageFile:
    """One image and what the folder says about it."""

    name: str
    """The stem of the file, in the composed form of Unicode."""
    image: Path
    mask: Path | None = None
    label: str | None = None
    group: str | None = None
    spacing: tuple[float, float] | None = None
    """Height and width of a pixel in mm, where `labels.csv` says them."""


@dataclass
class FolderFiles:
    """The images of a folder by part, and every problem that keeps it from being read.

    A problem is the exception that says it; its message begins with the file.
    """

    path: Path
    labeled: list[ImageFile] = field(default_factory=list)
    unlabeled: list[ImageFile] = field(default_factory=list)
    test: list[ImageFile] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Files that are neither images nor what an operating system leaves behind."""
    notes: list[str] = field(default_factory=list)
    """What is found and not used."""

    def unread(self) -> list[str]:
        """Returns a line for each kind of finding that is not used: columns, and files by their suffix."""
        if not self.skipped:
            return self.notes
        kinds = Counter(file.suffix.lower() or "no suffix" for file in self.skipped)
        each = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(6))
        return [*self.notes, f"not read, no images by their names: {each}, such as {self.skipped[0]}"]

    def parts(self) -> dict[str, list[ImageFile]]:
        """Returns the images by the name of their part."""
        return {"labeled": self.labeled, "unlabeled": self.unlabeled, "test": self.test}


def find_folder_files(path: str | Path, mask_name: str = "{}", need_unlabeled: bool = True) -> FolderFiles:
    """Looks through `labeled/`, `unlabeled/`, `test/` and `labels.csv` of a folder.

    Args:
        path: The folder.
        mask_name: What masks are called, see `read_folder`.
        need_unlabeled: Whether a folder without `unlabeled/` is a problem.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If `mask_name` does not hold the image's name once.
    """
    path = Path(path)
    check_mask_name(mask_name)
    if not path.is_dir():
        raise FileNotFoundError(f"{one_line(path)} is no folder; give the one that holds labeled/ and unlabeled/")
    files = FolderFiles(path)
    files.labeled = _pairs(files, labeled_part(path), mask_name, required=True)
    if (path / "unlabelled").exists() and not os.path.lexists(path / "unlabeled"):
        files.problems.append(FileNotFoundError(f"{path / 'unlabelled'} is not read; call it unlabeled"))
    elif os.path.lexists(path / "unlabeled"):
        found = _images(files, "unlabeled", required=need_unlabeled)
        files.unlabeled = [ImageFile(image_stem(file), file) for file in found]
    elif need_unlabeled:
        problem = f"{path / 'unlabeled'} is missing; put the images there"
        more = ", or give `labeled`, a number of images to learn from, which hides the targets of the others"
        files.problems.append(FileNotFoundError(problem + more))
    files.test = _pairs(files, "test", mask_name, required=False)
    _add_labels(files)
    known = {labeled_part(path), "unlabeled", "unlabelled", "test", "labels.csv"}
    others = [entry for entry in sorted(path.iterdir()) if entry.name not in known and not _ignored(entry)]
    if others:
        names = ", ".join(f"{printable(Path(entry.name))}{'/' if entry.is_dir() else ''}" for entry in others[:9])
        more = f" and {len(others) - 9} others" if len(others) > 9 else ""
        files.notes.append(f"not read in {printable(path)}: {names}{more}")
    return _on_one_line(files)


def labeled_part(path: Path) -> str:
    """The part of a folder that holds its labelled images: `labeled`, or `train` where that is there alone."""
    return "train" if (path / "train").is_dir() and not (path / "labeled").is_dir() else "labeled"


def find_image_files(path: str | Path, mask_name: str = "{}") -> FolderFiles:
    """Looks through one set of images, as the part `test`: `images/`, `test/images/` or `labeled/images/` of a folder.

    Args:
        path: The folder.
        mask_name: What masks are called, see `read_folder`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If `mask_name` does not hold the image's name once.
    """
    path = Path(path)
    check_mask_name(mask_name)
    part = next((part for part in (".", "test", labeled_part(path)) if (path / part / "images").is_dir()), None)
    if part is None:
        raise FileNotFoundError(
            f"{path} holds no folder images/, test/images/ or labeled/images/; put the images there"
        )
    files = FolderFiles(path)
    files.test = _pairs(files, part, mask_name, required=True)
    _add_labels(files, whole=False)
    return _on_one_line(files)


def _on_one_line(files: FolderFiles) -> FolderFiles:
    """The same with problems that do nothing to a screen, whatever files are called."""
    files.problems = [type(problem)(one_line(problem)) for problem in files.problems]
    return files


def _pairs(files: FolderFiles, part: str, mask_name: str, required: bool) -> list[ImageFile]:
    """The images of `part/images`, each with its mask where `part/masks` exists."""
    if not required and not os.path.lexists(files.path / part):
        return []
    images = _images(files, f"{part}/images", required=True)
    if not os.path.lexists(files.path / part / "masks"):
        return [ImageFile(image_stem(file), file) for file in images]
    folder = files.path / part / "masks"
    masks = {image_stem(file): file for file in _images(files, f"{part}/masks", required=False)}
    wanted = {file: mask_of(image_stem(file), unicodedata.normalize("NFC", file.name), mask_name) for file in images}
    # Masks of the declared name first: another image's may have the plain name of this one.
    found = {file: masks.pop(name) for file, name in wanted.items() if name in masks}
    for file in images:
        if file not in found and (name := image_stem(file)) in masks:  # as `predict --as-labels` calls them
            found[file] = masks.pop(name)
    for file in images:
        if file not in found:
            problem = f"{file}: the image has no mask; expected {folder / (wanted[file] or image_stem(file))}.png"
            files.problems.append(FileNotFoundError(problem))
    for mask in masks.values():
        files.problems.append(FileNotFoundError(f"{mask}: the mask has no image in {files.path / part / 'images'}"))
    return [ImageFile(image_stem(file), file, found[file]) for file in images if file in found]


def _images(files: FolderFiles, part: str, required: bool) -> list[Path]:
    """The image files directly in a folder, sorted; of two with one stem only the first, and no masks of others."""
    folder = files.path / part
    try:
        found = _found(files, folder, required)
    except OSError as error:  # not allowed to look into it, or a disk that fails
        problem = f"{folder}: cannot be read ({error.strerror or error}); change its permissions"
        files.problems.append(type(error)(problem))
        return []
    if folder.name != "masks" and (masks := masks_beside(found)):
        shown = found[masks[0]].name
        files.notes.append(f"{part}: not read, {len(masks)} masks beside their images by their names, such as {shown}")
        found = {stem: file for stem, file in found.items() if stem not in masks}
    return list(found.values())


def masks_beside(stems: Iterable[str]) -> list[str]:
    """Returns the names that are another one's with `_mask` or `_mask_1` behind, as BUSI's masks are called."""
    names = set(stems)
    return sorted(name for name in names if (match := _MASK.fullmatch(name)) and match[1] in names)


def _found(files: FolderFiles, folder: Path, required: bool) -> dict[str, Path]:
    """The image files of a folder by their stems.

    Raises:
        OSError: If it cannot be looked into.
    """
    if not folder.is_dir():
        files.problems.append(FileNotFoundError(f"{folder} is missing; put the images there"))
        return {}
    if not _inside(folder, files.path):
        files.problems.append(ValueError(f"{folder}: is a link out of {files.path}; put the files there themselves"))
        return {}
    found: dict[str, Path] = {}
    problems = len(files.problems)
    for file in sorted(folder.iterdir()):
        if _ignored(file):
            continue
        if (problem := _unfit(file, files.path)) is not None:
            files.problems.append(ValueError(f"{printable(file)}: {problem}"))
        elif not is_image(file):
            files.skipped.append(file)
        elif image_stem(file) in found:
            problem = (
                f"{file}: {found[image_stem(file)].name} beside it has the same name but for the suffix; rename one"
            )
            files.problems.append(ValueError(problem))
        else:
            found[image_stem(file)] = file
    if required and not found and len(files.problems) == problems:
        problem = f"{folder} holds no image ({', '.join(SUFFIXES)}, or DICOM); put the images there"
        files.problems.append(FileNotFoundError(problem))
    return found


def _ignored(file: Path) -> bool:
    """Whether it is hidden, or what operating systems leave behind."""
    return file.name.startswith(".") or file.name.lower() in _LITTER


def _unfit(file: Path, root: Path) -> str | None:
    """Why something in an image folder cannot be an image file of it; None if it may be one."""
    if printable(file) != str(file):
        return "its name is not valid UTF-8, or holds control characters; rename it"
    if file.is_symlink() and not file.exists():
        return "is a link to nothing; remove it"
    if not _inside(file, root):
        return f"is a link out of {root}; put the file there itself"
    if file.is_dir():
        return "is a folder; put its images into the folder above"
    return None if file.is_file() else "is no ordinary file; remove it"


def _inside(file: Path, root: Path) -> bool:
    try:
        return file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def is_image(file: Path) -> bool:
    """By the suffix, or, as DICOM files often have none, by the mark of DICOM; a disc's table of contents is none."""
    if file.suffix.lower() in SUFFIXES:
        return True
    if not file.is_file() or file.name.upper() == "DICOMDIR":
        return False
    try:
        with file.open("rb") as stream:
            return is_dicom(stream.read(132))
    except OSError:
        return False


def image_stem(file: Path) -> str:
    """Returns what an image file is called without its suffix, in the composed form of Unicode."""
    # The last number of a DICOM identifier is no suffix.
    stem = file.stem if file.suffix.lower() in SUFFIXES else file.name
    return unicodedata.normalize("NFC", stem)


def _add_labels(files: FolderFiles, whole: bool = True) -> None:
    """Adds the rows of `labels.csv` to the images, or what is wrong with them to the problems.

    Args:
        files: What was found.
        whole: Whether it is all that the folder holds; else there may be rows for images in its other parts.
    """
    file, table = files.path / "labels.csv", None
    if os.path.lexists(file):
        try:
            if not _inside(file, files.path):
                raise ValueError(f"{file}: is a link out of {files.path}; put the file there itself")
            table = read_labels(file)
        except (ValueError, OSError) as error:
            files.problems.append(error)
            return
        if table.unread:
            more = f" and {len(table.unread) - 9} others" if len(table.unread) > 9 else ""
            files.notes.append(f"{file.name}: not read, the columns {', '.join(table.unread[:9])}{more}")
        _assign(files, file, table, whole)
        _check_groups(files, file, table.grouping)
        if table.has_classes:
            return
    for part, images in (("labeled", files.labeled), ("test", files.test)):
        if images and images[0].mask is None and not os.path.lexists(files.path / part / "masks"):
            files.problems.append(
                FileNotFoundError(
                    f"{files.path} has neither {part}/masks nor labels.csv{' with classes' if table else ''}; give at "
                    "least one of them"
                )
            )


def picture_digest(pixels: np.ndarray) -> str | None:
    """Returns what tells a picture from others; None for one plain colour, which shows nothing."""
    if (pixels == pixels[:1, :1]).all():
        return None
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()


def same_pictures(parts: Mapping[str, Sequence[tuple[str | None, ImageFile]]]) -> list[str]:
    """Returns a sentence for each picture of the part `test` that is in another part, too, under whatever name.

    Args:
        parts: The digest and the file of each image, by part.
    """
    known = {
        digest: file
        for part, pictures in parts.items()
        for digest, file in pictures
        if part != "test" and digest is not None
    }
    return [
        f"{file.image} is {known[digest].image}, the same picture on both sides; remove one of them"
        for digest, file in parts.get("test", ())
        if digest in known
    ]


def _check_groups(files: FolderFiles, file: Path, grouping: str | None) -> None:
    """A patient who is trained on must not be tested on."""
    trained = {image.group: image for image in (*files.unlabeled, *files.labeled) if image.group is not None}
    for image in files.test:
        if image.group in trained:
            other = trained.pop(image.group)  # said once
            problem = f"{grouping} {image.group!r} is on both sides, with {other.image} and {image.image}"
            files.problems.append(ValueError(f"{file}: {problem}; move all of its images to one side"))


def _assign(files: FolderFiles, file: Path, table: Table, whole: bool) -> None:
    """Gives every image its row, found by its path in the folder or by its bare name; a labelled one goes first."""
    taken: set[str] = set()
    rows = table.rows
    for part, images in (("labeled", files.labeled), ("test", files.test), ("unlabeled", files.unlabeled)):
        for index, image in enumerate(images):
            inner = unicodedata.normalize("NFC", image.image.relative_to(files.path).as_posix())
            key = inner if inner in rows else inner.rpartition("/")[2]
            if key in taken and part == "test":
                problem = f"{file}: {key!r} is in labeled and in test; write paths, such as {inner!r}"
                files.problems.append(ValueError(problem))
            elif key in rows and key not in taken:
                taken.add(key)
                label, group, spacing = rows[key]
                images[index] = replace(image, label=label or None, group=group, spacing=spacing)
        wanted = part == "labeled" and table.has_classes or part == "test" and any(image.label for image in images)
        missing = {"class": [image.image.name for image in images if image.label is None] if wanted else []}
        if table.grouping and part != "unlabeled" and (part == "labeled" or any(image.group for image in images)):
            missing[table.grouping] = [image.image.name for image in images if image.group is None]
        for column, names in missing.items():
            if names:
                others = f" and {len(names) - 1} others" if len(names) > 1 else ""
                problem = f"no row with a {column} for {names[0]!r}{others}"
                files.problems.append(
                    ValueError(f"{file}: {problem}; give every image of {images[0].image.parent} one row")
                )
                break
    extra = sorted(rows.keys() - taken)
    if not whole:
        parts = (".", f"{labeled_part(files.path)}/images", "test/images", "unlabeled")
        places = [files.path / place for place in parts]
        extra = [name for name in extra if not any((place / name).is_file() for place in places)]
    if extra:
        files.problems.append(ValueError(f"{file}: a row for {extra[0]!r}, which is not an image; remove it"))
