"""Brings annotations from annotation tools into a folder that `from_folder` reads, and masks to the tools.

    semimed data convert EXPORT --images scans --output my_images --unlabeled
    semimed data convert predicted --to cvat --images my_images/unlabeled --output to_correct

EXPORT is what CVAT ("CVAT for images 1.1", "Segmentation mask 1.1"), LabelMe, Label Studio (JSON) or a tool that writes
COCO instances exported: a file or an unpacked folder; several are put together. With `--to` it goes the other way, from
masks that lie in masks/ or labeled/masks/ of a folder. The output is whole or not there. The exit status is 0, or 2
where nothing was written.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from keras_semimed.data.exchange import export_annotations, import_annotations
from keras_semimed.data.exchange.exporting import TOLERANCE
from keras_semimed.data.exchange.formats import WRITERS
from keras_semimed.data.exchange.importing import PARTS
from keras_semimed.data.exchange.label_studio import URL
from keras_semimed.data.folder.files import printable
from keras_semimed.data.images.mask_values import parse_keys
from keras_semimed.parsing import Parser

NAME = "semimed data convert"
_IN_ALONE = ("leave_out", "empty", "unlabeled", "part")
_OUT_ALONE = ("only", "shapes", "tolerance", "mask_value", "mask_name", "url")


def _arguments(prog: str) -> Parser:
    parser = Parser(
        prog,
        description=(__doc__ or "").replace(NAME, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="EXPORT", help="exports, or with --to a folder of masks")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where the images are (beside the export or the masks)"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes 1, 2, ... of the masks, such as lesion, or lesion=benign,malignant for several labels "
        "(default: the labels that are used)",
    )
    parser.add_argument("--ignore", metavar="NAME", help="label of what is neither, 255 in masks")
    into = parser.add_argument_group("from a tool")
    into.add_argument("--leave-out", nargs="+", metavar="NAME", help="labels that are not used, such as scale")
    into.add_argument(
        "--empty",
        choices=("skip", "background"),
        help="what an image of the export is that nothing is drawn on: not annotated (skip, the default) or background",
    )
    into.add_argument("--unlabeled", action="store_true", help="copy the images without annotations to unlabeled/")
    into.add_argument("--part", choices=PARTS, help="the part that the annotated images are (default: labeled)")
    out = parser.add_argument_group("to a tool")
    out.add_argument("--to", choices=tuple(WRITERS), help="the tool")
    out.add_argument("--only", type=Path, metavar="FILE", help="a text file with the image names to write, one a line")
    out.add_argument("--shapes", choices=("polygon", "mask"), help="outlines (default), or every pixel")
    out.add_argument(
        "--tolerance", type=float, metavar="PIXELS", help=f"how much an outline is simplified (default: {TOLERANCE})"
    )
    out.add_argument(
        "--mask-value", action="append", metavar="VALUE=CLASS", help="as in keras_semimed.data.check; once for each"
    )
    out.add_argument("--mask-name", metavar="PATTERN", help="what masks are called, as in semimed check")
    out.add_argument("--url", metavar="TEXT", help=f"what stands before image names in Label Studio (default: {URL})")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m keras_semimed.data.convert") -> int:
    """Runs the command and returns its exit status."""
    parser = _arguments(prog)
    warnings.filterwarnings("ignore", module=r"PIL|pydicom|tifffile")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    given = vars(parser.parse_args(arguments))
    paths, tool = given.pop("paths"), given.pop("to", None)
    for name in _OUT_ALONE if tool is None else _IN_ALONE:
        if name in given:
            way = "goes with" if tool is None else "does not go with"
            parser.error(f"--{name.replace('_', '-')} {way} --to")
    if tool is not None and len(paths) > 1:
        parser.error(f"--to takes one folder, found {len(paths)}")
    try:
        lines = import_annotations(paths, **given) if tool is None else _export(paths[0], tool, given)
    except (OSError, ValueError, ImportError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    for line in lines:
        print(printable(line))
    return 0


def _export(folder: Path, tool: str, given: dict) -> list[str]:
    polygons = given.pop("shapes", "polygon") == "polygon"
    if "only" in given:
        given["only"] = _lines(given["only"])
    if "mask_value" in given:
        given["mask_values"] = parse_keys(given.pop("mask_value"))
    return export_annotations(folder, tool=tool, polygons=polygons, **given)


def _lines(file: Path) -> list[str]:
    """The lines of a text file; ValueError if it is none."""
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error}); write a name on each line") from error


if __name__ == "__main__":
    sys.exit(main())
