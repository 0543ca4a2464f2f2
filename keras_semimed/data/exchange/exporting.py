"""From images and masks, a model's among them, to files that annotation tools read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.exchange.classes import parse_classes, read_classes
from keras_semimed.data.exchange.drawn import DrawnImage, drawn
from keras_semimed.data.exchange.folders import whole_folder
from keras_semimed.data.exchange.formats import WRITERS
from keras_semimed.data.exchange.label_studio import URL, write_label_studio
from keras_semimed.data.exchange.names import ImageFiles, flat_name, unique_stems
from keras_semimed.data.folder.files import image_stem
from keras_semimed.data.folder.mask_names import check_mask_name, mask_of
from keras_semimed.data.images.mask_values import FoundValues, Key, found_values, settled
from keras_semimed.data.images.reading import read_mask_of, read_values
from keras_semimed.data.parallel import in_parallel

TOLERANCE = 0.75
_DEFAULT = "lesion"


class _Pair(NamedTuple):
    """An image and its mask."""

    name: str
    image: Path
    mask: Path


def export_annotations(
    folder: str | Path,
    output: str | Path,
    tool: str,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    ignore: str | None = None,
    only: Sequence[str] | None = None,
    polygons: bool = True,
    tolerance: float = TOLERANCE,
    mask_values: Mapping[Key, int] | None = None,
    url: str = URL,
    mask_name: str = "{}",
) -> list[str]:
    """Writes masks as annotations with copies of their images, to be corrected in a tool; all of it or nothing.

    Args:
        folder: It holds `masks/` or `labeled/masks/`, such as the output of `predict`.
        output: The folder to write, which must not be there or be empty.
        tool: `"coco"`, `"cvat"`, `"labelme"` or `"labelstudio"`.
        images: The folder of the images. None takes `images/` beside the masks.
        classes: Names of the mask classes from 1 on. None takes those in `classes.txt`, else one, `lesion`.
        ignore: The label for pixels that are ignored (255).
        only: Names of the images to write; None writes all that have a mask.
        polygons: Whether regions are outlined, except for those with holes, which these tools cannot outline. False
            keeps every pixel.
        tolerance: How far an outline may be from the corners that it leaves out, in pixels; 0 leaves out none that
            matters, so that the outline gives the same mask again.
        mask_values: As in `read_folder`.
        url: What stands before an image's name in its address in Label Studio.
        mask_name: What masks are called, as in `read_folder`.

    Returns:
        Lines that say what was written and what to do with it.

    Raises:
        FileNotFoundError: If a folder, an image or a mask is missing.
        FileExistsError: If `output` is there and not empty.
        ValueError: If masks hold what is no class, or an argument makes no sense.
    """
    if tool not in WRITERS:
        raise ValueError(f"`tool` must be one of {', '.join(WRITERS)}, found {tool!r}")
    if not 0 <= tolerance <= 10:
        raise ValueError(f"`tolerance` must be from 0 to 10 pixels, found {tolerance}")
    folder, output = Path(folder), Path(output)
    check_mask_name(mask_name)
    pairs = _pairs(folder, images, only, mask_name)
    known = classes if classes is not None else read_classes(folder)
    rule = parse_classes(known if known is not None else [_DEFAULT])
    found = list(in_parallel(lambda pair: _look(pair.mask), pairs, "looking at masks"))
    if known is None and mask_values is None:
        _check_two_classes(found)
    values = settled(mask_values, len(rule.names) + 1, found)
    names = dict(enumerate(rule.names, start=1)) | ({IGNORE: ignore} if ignore is not None else {})

    def draw(pair: _Pair) -> DrawnImage:
        mask = values.classes(read_mask_of(pair.image, pair.mask, values.palette_colours), str(pair.mask))
        if ignore is None and (mask == IGNORE).any():
            raise ValueError(f"{pair.mask}: holds pixels that are ignored (255); name a label for them with --ignore")
        height, width = mask.shape
        return DrawnImage(
            flat_name(pair.name), pair.image, height, width, list(drawn(mask, names, polygons, tolerance))
        )

    with whole_folder(output) as temporary:
        written = list(in_parallel(draw, pairs, "outlining masks"))
        place = temporary if tool == "labelme" else temporary / "images"
        place.mkdir(exist_ok=True)
        for image in written:
            shutil.copyfile(image.path, place / image.name)
        if tool == "labelstudio":
            advice = write_label_studio(temporary, written, list(names.values()), url)
        else:
            advice = WRITERS[tool](temporary, written, list(names.values()))
    return [_summary(output, written), *advice]


def _pairs(folder: Path, images: str | Path | None, only: Sequence[str] | None, mask_name: str) -> list[_Pair]:
    place = next((folder / part for part in ("masks", "labeled/masks") if (folder / part).is_dir()), None)
    if place is None:
        raise FileNotFoundError(
            f"{folder} holds neither masks/ nor labeled/masks/; give what `predict --as-labels` wrote"
        )
    if images is None and not (place.parent / "images").is_dir():
        raise FileNotFoundError(f"{place.parent / 'images'} is missing; say where the images are with --images")
    files = ImageFiles(images if images is not None else place.parent / "images")
    pairs: dict[str, _Pair] = {}
    masks = ImageFiles(place)
    stems = {name: Path(name).with_name(image_stem(Path(name))).as_posix() for name in masks.names}
    declared = _declared(files, mask_name)
    for mask, stem in stems.items():
        name = declared.get(stem) or files.find(stem, f"{place / mask}")
        if name is None:
            raise FileNotFoundError(f"{place / mask}: the mask has no image in {files.folder}; put it there")
        if name in pairs:
            raise ValueError(f"{place / mask}: {pairs[name].mask} is a mask of {name}, too; remove one")
        pairs[name] = _Pair(name, files.names[name], masks.names[mask])
    if only is not None:
        chosen = [files.find(name, "--only") or name for name in only]
        if missing := [name for name in chosen if name not in pairs]:
            raise FileNotFoundError(
                f"--only names {missing[0]}, which has no mask in {place}; name images that have one"
            )
        pairs = {name: pairs[name] for name in chosen}
    unique_stems(pairs)
    return list(pairs.values())


def _declared(files: ImageFiles, mask_name: str) -> dict[str, str]:
    """The images by what their masks are called, without suffix."""
    found = {}
    for name in files.names:
        path = Path(name)
        if (mask := mask_of(image_stem(path), path.name, mask_name)) is not None:
            found[path.with_name(mask).as_posix()] = name
    return found


def _look(mask: Path) -> FoundValues:
    return found_values(read_values(mask), str(mask))


def _check_two_classes(found: Sequence[FoundValues]) -> None:
    for mask in found:
        if further := sorted(code for code in mask.codes if 1 < code < IGNORE):
            raise ValueError(
                f"{mask.file}: holds {further[0]}, a class without a name; name the classes with --classes"
            )


def _summary(output: Path, images: Sequence[DrawnImage]) -> str:
    regions = [region for image in images for region in image.regions]
    outlined = [region for region in regions if region.ring is not None]
    corners = sum(len(region.ring) for region in outlined if region.ring is not None)
    kinds = [f"{len(outlined)} outlines of {corners / len(outlined):.0f} corners each"] if outlined else []
    kinds += [f"{len(regions) - len(outlined)} masks"] if len(regions) > len(outlined) else []
    return f"{output}: {len(images)} images with {' and '.join(kinds) or 'nothing drawn on them'}"
