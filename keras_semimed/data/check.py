"""Reads everything in a folder of images and says whether training can start.

    semimed check my_images
    semimed check my_images --mask-value 0=0 --mask-value 128..255=1 --intensity-range 0 4095

prints one table with what each part holds and every file that has something wrong with it. The exit status is 0 if
training can start, 1 if it cannot, 2 for wrong usage.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_semimed.data.argument_checks import check_class_names, check_intensity_range, check_num_classes
from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.folder.files import FolderFiles, ImageFile, find_folder_files, picture_digest, same_pictures
from keras_semimed.data.folder.tasks import cut_off, hide_targets, learnable
from keras_semimed.data.images import read_image, read_pair, with_channels
from keras_semimed.data.images.mask_values import (
    FoundValues,
    Key,
    MaskValues,
    code_name,
    found_values,
    parse_keys,
    settled,
)
from keras_semimed.data.parallel import in_parallel
from keras_semimed.data.reading_flags import with_flags
from keras_semimed.parsing import Parser
from keras_semimed.text import one_line


@dataclass(frozen=True)
class Declarations:
    """What is said about the files rather than found in them; as in `read_folder`."""

    num_classes: int | None = None
    mask_values: dict[Key, int] | None = None
    class_names: tuple[str, ...] | None = None
    intensity_range: tuple[float, float] | None = None
    mask_name: str = "{}"

    def __post_init__(self) -> None:
        if self.num_classes is not None:
            check_num_classes(self.num_classes)
        if self.class_names is not None:
            object.__setattr__(self, "class_names", check_class_names("class_names", self.class_names))
        if self.intensity_range is not None:
            check_intensity_range(self.intensity_range)


class Look(NamedTuple):
    """What one image with its mask turned out to be."""

    size: tuple[int, int] | None
    """Height and width; None where it could not be read."""
    mask: FoundValues | None
    problem: str | None
    digest: str | None = None
    """What tells the picture from others."""


class Report(NamedTuple):
    """The table, and what keeps training from starting."""

    table: str
    problems: list[str]
    needs: tuple[str, ...] = ()
    """What a training from the shell has to be told in addition: a flag and why."""

    @property
    def ending(self) -> str:
        """Whether training can start, in a sentence."""
        if self.problems:
            return "training cannot start before these are mended"
        return "training can start" + "".join(f"; give {need}" for need in self.needs)


def check_folder(path: str | Path, declared: Declarations | None = None) -> Report:
    """Reads every file of a folder, in parallel, and collects all problems instead of raising the first.

    Args:
        path: The folder, as in `read_folder`.
        declared: What is known about the files.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the declarations make no sense.
    """
    declared = declared or Declarations()
    files = find_folder_files(path, declared.mask_name, need_unlabeled=False)
    rule = settled(declared.mask_values, declared.num_classes, [])

    def look(file: ImageFile) -> Look:
        return _look(file, rule.palette_colours, declared.intensity_range)

    looks = {part: list(in_parallel(look, images, f"reading {part}")) for part, images in files.parts().items()}
    problems = [str(problem) for problem in files.problems]
    problems += [look.problem for part in looks.values() for look in part if look.problem is not None]
    values, mask_problems = _check_masks([look.mask for part in looks.values() for look in part if look.mask], declared)
    tasks = learnable(files, declared.class_names, _shows_lesion(files, looks["labeled"], values))
    problems += mask_problems + _wrong_classes(files, declared.class_names) + tasks.problems
    problems += same_pictures(
        {
            part: [(look.digest, file) for look, file in zip(looks[part], images, strict=True)]
            for part, images in files.parts().items()
        }
    )
    problems = [one_line(problem) for problem in problems]
    return Report(
        _table(files, looks, values, problems), problems, (*cut_off(files), *hide_targets(files), *tasks.needs)
    )


def _look(file: ImageFile, palette_colours: bool, intensity_range: tuple[float, float] | None) -> Look:
    try:
        if file.mask is None:
            pixels = read_image(file.image, intensity_range=intensity_range)
            return Look(pixels.shape[:2], None, None, picture_digest(pixels))
        image, mask = read_pair(file.image, file.mask, intensity_range, palette_colours)
        pixels = with_channels(image.pixels, 3)
        return Look(pixels.shape[:2], found_values(mask, str(file.mask)), None, picture_digest(pixels))
    except ImportError as error:
        return Look(None, None, f"{file.image}: {error}")
    except (OSError, ValueError) as error:
        return Look(None, None, str(error))


def _check_masks(found: Sequence[FoundValues], declared: Declarations) -> tuple[MaskValues | None, list[str]]:
    """The rule for the masks, if there is one, and every mask that does not follow it."""
    if not found:
        return None, []
    try:
        rule = settled(declared.mask_values, declared.num_classes, found)
    except ValueError as error:
        return None, [str(error)]
    problems = []
    for mask in found:
        try:
            rule.classes_of(np.array(sorted(mask.codes)), mask)
        except ValueError as error:
            problems.append(str(error))
    return rule, problems


def _shows_lesion(files: FolderFiles, looks: Sequence[Look], values: MaskValues | None) -> bool:
    """Whether a labelled mask has a pixel of a class above the background, or none could be looked at."""
    found = [look.mask for look in looks if look.mask is not None]
    if values is None or len(found) < len(files.labeled):
        return True  # the problems say what is wrong
    try:
        classes = {index for mask in found for index in values.classes_of(np.array(sorted(mask.codes)), mask).tolist()}
    except ValueError:
        return True
    return any(0 < index < IGNORE for index in classes)


def _wrong_classes(files: FolderFiles, declared: tuple[str, ...] | None) -> list[str]:
    images = [image for image in (*files.labeled, *files.test) if image.label is not None]
    wrong = [image for image in images if declared is not None and image.label not in declared]
    return [f"{image.image}: its class in labels.csv is {image.label!r}; expected one of {declared}" for image in wrong]


def _table(files: FolderFiles, looks: dict[str, list[Look]], values: MaskValues | None, problems: Sequence[str]) -> str:
    rows = [("part", "images", "read", "masks", "groups", "width x height: least / median / largest")]
    for part, images in files.parts().items():
        sizes = [look.size for look in looks[part] if look.size is not None]
        groups = {image.group for image in images if image.group is not None}
        masks = sum(look.mask is not None for look in looks[part])
        rows.append((part, str(len(images)), str(len(sizes)), str(masks), str(len(groups) or "-"), _sizes(sizes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(len(line) for line in lines))
    counted = Counter(code for part in looks.values() for look in part if look.mask for code in look.mask.codes)
    if counted:
        most = ", ".join(f"{code_name(code)} in {number}" for code, number in sorted(counted.items())[:8])
        lines.append(f"mask values: {most}{', …' if len(counted) > 8 else ''} masks; read as {values or 'nothing yet'}")
    for part, images in files.parts().items():
        classes = Counter(image.label for image in images if image.label is not None)
        if classes and part != "unlabeled":
            each = ", ".join(f"{name} {number}" for name, number in sorted(classes.items()))
            lines.append(f"image classes, {part}: {each}")
    lines += map(one_line, files.unread())
    lines.append(f"problems: {len(problems) or 'none'}")
    return "\n".join([*lines, *(f"  {problem}" for problem in problems)])


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    chosen = (by_area[0], by_area[len(by_area) // 2], by_area[-1])
    return " / ".join(f"{width}x{height}" for height, width in chosen)


def _arguments(prog: str) -> Parser:
    parser = Parser(
        prog=prog,
        description="Reads everything in a folder of images and says whether training can start.",
        epilog="Exit status: 0 if training can start, 1 if not, 2 for wrong usage.",
    )
    parser.add_argument("path", type=Path, help="folder with labeled/, unlabeled/ and perhaps test/ and labels.csv")
    parser.add_argument("--num-classes", type=int, help="number of mask classes, background included")
    parser.add_argument(
        "--mask-value",
        action="extend",
        nargs="+",
        metavar="VALUE=CLASS",
        help="class of a grey value, range or colour in masks, such as 255=1, 128..255=1 or 255,0,0=1",
    )
    parser.add_argument("--class-names", nargs="+", help="all image classes, in the order of their labels")
    parser.add_argument(
        "--mask-name", default="{}", help="as '{}_mask', '{file}' for case.tif.png, or 'img_{} -> mask_{}' ({})"
    )
    parser.add_argument("--intensity-range", nargs=2, type=float, metavar=("BLACK", "WHITE"))
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m keras_semimed.data.check") -> int:
    """Runs the command and returns its exit status."""
    parser = _arguments(prog)
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"PIL|pydicom|tifffile")  # the table says what matters
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal's encoding lacks
    try:
        values = parse_keys(given.mask_value) if given.mask_value else None
        names = tuple(given.class_names) if given.class_names else None
        limits = tuple(given.intensity_range) if given.intensity_range else None
        report = check_folder(given.path, Declarations(given.num_classes, values, names, limits, given.mask_name))
    except (OSError, ValueError) as error:
        parser.error(with_flags(one_line(error)))
    print(with_flags(report.table))
    print(report.ending)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
