"""From exports of annotation tools to a folder that `read_folder` reads."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_semimed.data.exchange.classes import Classes, class_of, parse_classes, read_classes, write_classes
from keras_semimed.data.exchange.folders import whole_folder
from keras_semimed.data.exchange.formats import read_export
from keras_semimed.data.exchange.names import ImageFiles, flat_name, unique_stems
from keras_semimed.data.exchange.painting import paint
from keras_semimed.data.exchange.shapes import AnnotatedImage, Annotation, Export
from keras_semimed.data.images.colours import indexed
from keras_semimed.data.images.pixels import upright
from keras_semimed.data.images.reading import read_stored
from keras_semimed.data.parallel import in_parallel

PARTS = ("labeled", "test")
_ORIENTATION = 0x0112
# What turns an image back that was turned upright; the others are their own.
_BACK = {6: 8, 8: 6}


class _Job(NamedTuple):
    """One image to be written."""

    name: str
    file: Path
    stem: str
    image: AnnotatedImage
    annotations: list[tuple[int, Annotation]]


class _Done(NamedTuple):
    """What became of one image."""

    name: str
    written: bool
    classes: frozenset[int]
    overlap: int
    invisible: list[str]
    turned: bool


@dataclass
class _Chosen:
    """What is written and what is not."""

    jobs: list[_Job] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Images without annotations that are taken for not annotated."""
    background: int = 0
    """Images without annotations that are taken for background."""
    unread: list[str] = field(default_factory=list)
    """Images on which only what is no area was drawn."""
    left_out: Counter[str] = field(default_factory=Counter)


def import_annotations(
    exports: Sequence[str | Path],
    output: str | Path,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    ignore: str | None = None,
    leave_out: Iterable[str] = (),
    empty: str = "skip",
    unlabeled: bool = False,
    part: str = "labeled",
) -> list[str]:
    """Writes images and masks of exports as `read_folder` reads them; all of it or nothing.

    Args:
        exports: What `read_export` reads, from one tool or several.
        output: The folder to write, which must not be there or be empty; or a folder of images that lacks the part.
        images: The folder of the images. None takes the folder in which the first export lies.
        classes: Names of the mask classes from 1 on, see `parse_classes`. None takes those of `output` or the exports.
        ignore: The label whose pixels are to be ignored: 255 in the masks.
        leave_out: Labels whose annotations are not used.
        empty: What an image is that the exports name and nothing is drawn on: `"skip"`, not annotated, or
            `"background"`, annotated with nothing found.
        unlabeled: Whether the other images of the folder go to `unlabeled/`.
        part: `"labeled"` or `"test"`.

    Returns:
        Lines that say what was written and what was not.

    Raises:
        FileNotFoundError: If an export, a folder or an image is missing.
        FileExistsError: If `output` holds the part already, or something else.
        ValueError: If an export is damaged, does not fit the images or has labels that are not declared.
        ImportError: If an image is DICOM and pydicom is missing.
    """
    if part not in PARTS or empty not in ("skip", "background"):
        raise ValueError(f"`part` must be one of {PARTS} and `empty` skip or background, found {part!r} and {empty!r}")
    output = Path(output)
    adds = output.is_dir() and any(output.iterdir())
    if adds:
        _check_addition(output, part, unlabeled)
    found = _merged([read_export(export) for export in exports])
    known = read_classes(output)
    rule = parse_classes(classes if classes is not None else known, ignore, leave_out, found)
    if known is not None and known != rule.names:
        raise ValueError(
            f"{output} has the classes {', '.join(known)}, these are {', '.join(rule.names)}; name the same"
        )
    first = Path(exports[0])
    files = ImageFiles(images if images is not None else first if first.is_dir() else first.parent, without=output)
    chosen = _choose(found, files, rule, empty == "background")
    if not chosen.jobs:
        raise ValueError(f"{found.file}: holds no annotation of an area; nothing was written")
    with whole_folder(output / part if adds else output) as temporary:
        place = temporary if adds else temporary / part
        done = _write(chosen.jobs, place)
        if not any(each.written for each in done):
            raise ValueError(f"{found.file}: no annotation covers a pixel of its image; nothing was written")
        written = {each.name for each in done if each.written}
        others = [name for name in files.names if name not in written]
        if unlabeled:
            _copy(files, others, temporary / "unlabeled")
        if not adds:
            write_classes(temporary, rule.names)
    if adds and known is None:
        write_classes(output, rule.names)
    lines = [
        f"{output / part}: {len(written)} images with masks",
        *_class_lines(rule, done),
        *_notes(found, chosen, done),
    ]
    if part == "labeled":
        where = f"are in {output / 'unlabeled'}" if unlabeled else "were left; --unlabeled takes them as unlabelled"
        lines.append(f"other images of {files.folder}: {len(others)} {where}")
    return [*lines, _advice(output, rule, done)]


def _check_addition(output: Path, part: str, unlabeled: bool) -> None:
    if not any((output / each).is_dir() for each in (*PARTS, "unlabeled")):
        raise FileExistsError(f"{output} is not empty and no folder of images; give another --output")
    if (output / part).exists():
        raise FileExistsError(f"{output / part} is there already; give another --output or remove it")
    if unlabeled:
        raise FileExistsError(f"{output} is there already; give another --output, or add one part without --unlabeled")


def _merged(exports: Sequence[Export]) -> Export:
    merged = Export(", ".join(export.file for export in exports))
    for export in exports:
        merged.images += export.images
        merged.labels += export.labels
        merged.unread += export.unread
        merged.notes += export.notes
    return merged


def _choose(export: Export, files: ImageFiles, classes: Classes, background: bool) -> _Chosen:
    """Finds the file of each image that has annotations, and counts what is not taken."""
    chosen, missing = _Chosen(), []
    taken: dict[str, AnnotatedImage] = {}
    for image in export.images:
        valued = [(class_of(each.label, each.where, classes), each) for each in image.annotations]
        chosen.left_out.update(each.label for value, each in valued if value is None)
        annotations = [(value, each) for value, each in valued if value is not None]
        if not image.looked_at or not (annotations or background) or (not annotations and image.unread):
            if image.unread and not annotations:
                chosen.unread.append(image.name)
            elif image.looked_at:
                chosen.skipped.append(image.name)
            continue
        chosen.background += not annotations
        name = files.find(image.name, image.where, image.base)
        if name is None:
            missing.append(image)
            continue
        if name in taken:
            other = f"{taken[name].name} of {taken[name].where}"
            raise ValueError(f"{image.where}: {image.name} is the image {name}, and so is {other}; keep one of them")
        taken[name] = image
        chosen.jobs.append(_Job(name, files.names[name], "", image, annotations))
    if missing:
        others = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{missing[0].where}: {missing[0].name} is not in {files.folder}{others}; put it there")
    stems = unique_stems(job.name for job in chosen.jobs)
    chosen.jobs = [job._replace(stem=stems[job.name]) for job in chosen.jobs]
    return chosen


def _write(jobs: Sequence[_Job], place: Path) -> list[_Done]:
    """Writes images and masks of a part."""
    for name in ("images", "masks"):
        (place / name).mkdir(parents=True)

    def write(job: _Job) -> _Done:
        picture = read_stored(job.file)
        size, orientation = picture.pixels.shape[:2], picture.orientation
        given = job.image.size or size
        sideways = orientation >= 5 and given != size and given == size[::-1]
        if given != size and not sideways:
            raise ValueError(
                f"{job.image.where}: its image has {given} pixels (height, width) in the export, and {job.file} has "
                f"{size}; give the images that were annotated"
            )
        painted = paint(job.annotations, *given)
        if job.annotations and len(painted.invisible) == len(job.annotations):
            return _Done(job.name, False, frozenset(), 0, painted.invisible, False)
        # The mask is stored as the image is, so that whoever reads both turns both.
        mask = painted.mask if sideways else upright(painted.mask, _BACK.get(orientation, orientation))
        exif = Image.Exif()
        if orientation > 1:
            exif[_ORIENTATION] = orientation
        indexed(mask).save(place / "masks" / f"{job.stem}.png", "PNG", compress_level=1, exif=exif)
        shutil.copyfile(job.file, place / "images" / flat_name(job.name))
        values = frozenset(np.unique(mask).tolist())
        return _Done(job.name, True, values, painted.overlap, painted.invisible, orientation > 1)

    return list(in_parallel(write, jobs, "writing masks"))


def _copy(files: ImageFiles, names: Sequence[str], place: Path) -> None:
    place.mkdir()
    unique_stems(names)
    for _ in in_parallel(lambda name: shutil.copyfile(files.names[name], place / flat_name(name)), names, "copying"):
        pass


def _class_lines(rule: Classes, done: Sequence[_Done]) -> list[str]:
    counts = Counter(value for each in done if each.written for value in each.classes)
    named: Mapping[int, str] = {0: "background", **dict(enumerate(rule.names, start=1))}
    each = [f"{value} = {name} (in {counts[value]})" for value, name in named.items()]
    each += [f"255 = ignored (in {counts[255]})"] if counts[255] else []
    return [f"classes: {', '.join(each)} of the masks"]


def _notes(export: Export, chosen: _Chosen, done: Sequence[_Done]) -> list[str]:
    """A line for each kind of finding that is not in the masks, or that was decided."""
    lines = list(export.notes)
    invisible = [where for each in done for where in each.invisible]
    over = [each for each in done if each.overlap]
    turned = sum(each.turned for each in done)
    if export.unread:
        kinds = ", ".join(f"{number} {kind}" for kind, number in export.unread.most_common())
        lines.append(f"not read, no areas: {kinds}")
    if chosen.unread:
        lines.append(f"left out, as only what is no area is drawn on them: {_listed(chosen.unread)}")
    if chosen.left_out:
        kinds = ", ".join(f"{number} {label}" for label, number in chosen.left_out.most_common())
        lines.append(f"left out by their label: {kinds}")
    if chosen.skipped:
        names = _listed(chosen.skipped)
        lines.append(
            f"nothing is drawn on {names}: taken as not annotated; --empty background takes them as background"
        )
    if chosen.background:
        lines.append(f"images with nothing drawn on them, taken as background: {chosen.background}")
    if invisible:
        lines.append(f"annotations that cover no pixel, left out: {_listed(invisible)}")
    if unseen := [each.name for each in done if not each.written]:
        lines.append(f"left out, as no annotation of them covers a pixel: {_listed(unseen)}")
    if over:
        pixels = sum(each.overlap for each in over)
        names = _listed([each.name for each in over])
        lines.append(f"classes overlap in {pixels} pixels of {names}: what the tool shows above counts")
    if turned:
        lines.append(f"images with an EXIF orientation: {turned}, their masks have it, too")
    return lines


def _listed(names: Sequence[str]) -> str:
    """How many, and the first."""
    return names[0] if len(names) == 1 else f"{len(names)}, such as {names[0]}"


def _advice(output: Path, rule: Classes, done: Sequence[_Done]) -> str:
    """How the folder is read."""
    number = "" if len(rule.names) == 1 else f", num_classes={len(rule.names) + 1}"
    if any(255 in each.classes for each in done) and not number:
        number = ", mask_values={0: 0, 1: 1, 255: 255}"
    return f"read it with data.from_folder({str(output)!r}{number})"
