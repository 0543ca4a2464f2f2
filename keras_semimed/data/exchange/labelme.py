"""LabelMe's JSON, a file an image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_semimed.data.exchange.drawn import Drawn, DrawnImage, save_json
from keras_semimed.data.exchange.fields import corners, entry, read_json, shown, size_of
from keras_semimed.data.exchange.shapes import (
    AnnotatedImage,
    Annotation,
    Area,
    Ellipse,
    Export,
    Polygons,
    Raster,
    box,
)
from keras_semimed.data.folder.files import image_stem
from keras_semimed.data.images.pixels import check_size
from keras_semimed.data.progress import progress

# Which version wrote a file decides nothing that is read or written here.
_VERSION = "5.5.0"


def is_labelme(content: Any) -> bool:
    """Tells by its keys whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read_labelme(files: Sequence[Path]) -> Export:
    """Reads the polygons, rectangles, circles and masks of one file an image.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If one is damaged or none of LabelMe's.
    """
    export = Export(str(files[0] if len(files) == 1 else files[0].parent))
    for file in progress(files, "reading annotations"):
        where, content = str(file), read_json(file)
        name = entry(content, "imagePath", str, where).replace("\\", "/")
        size = size_of(content.get("imageHeight"), content.get("imageWidth"), where)
        image = AnnotatedImage(name, where, size, base=file.parent)
        export.images.append(image)
        for index, shape in enumerate(entry(content, "shapes", list, where)):
            place = f"{where}: shapes[{index}]"
            kind = shape.get("shape_type") if isinstance(shape, dict) else None
            area = _area(shape, kind or "polygon", place)  # the first versions knew nothing else
            if area is None:
                export.leave_out(image, str(kind))
            else:
                image.annotations.append(Annotation(entry(shape, "label", str, place), area, place))
    return export


def _area(shape: Any, kind: str, where: str) -> Area | None:
    """What a shape covers; None for one that is no area."""
    if kind not in ("polygon", "rectangle", "oriented_rectangle", "circle", "mask"):
        return None
    points = corners(entry(shape, "points", list, where), where)
    if kind in ("polygon", "oriented_rectangle"):
        return Polygons([points if len(points) else np.zeros((1, 2))])
    if len(points) != 2:
        raise ValueError(f"{where}: a {kind} must have 2 points, found {len(points)}; draw it again")
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "rectangle":
        return Polygons([box(x0, y0, x1, y1)])
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return Ellipse(x0, y0, radius, radius)
    # The points of a mask are the first and the last pixel.
    height, width = int(y1) - int(y0) + 1, int(x1) - int(x0) + 1
    picture = entry(shape, "mask", str, where)
    return Raster(partial(_decoded, picture, (height, width), where), int(y0), int(x0))


def _decoded(picture: str, expected: tuple[int, int], where: str) -> np.ndarray:
    """A PNG in base64 to `(H, W)` bool."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True)), formats=("PNG",)) as image:
            check_size(*image.size)
            pixels = np.asarray(image.convert("L")) > 0
    except Exception as error:  # damaged bytes make Pillow raise anything
        raise ValueError(f"{where}: its mask cannot be decoded ({shown(str(error))}); draw it again") from error
    if pixels.shape != expected:
        raise ValueError(f"{where}: its mask is {pixels.shape} (height, width), and its points {expected} apart")
    return pixels


def write_labelme(folder: Path, images: Sequence[DrawnImage], labels: Sequence[str]) -> list[str]:
    """Writes a file beside each image; regions that are no polygons as masks.

    Returns:
        What to do with it.
    """
    del labels  # every shape has its own
    for image in images:
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": [_shape(region) for region in image.regions],
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        save_json(folder / f"{image_stem(Path(image.name))}.json", content)
    return ["LabelMe: open the folder, as in `labelme .`"]


def _shape(region: Drawn) -> dict[str, Any]:
    shape: dict[str, Any] = {"label": region.label, "group_id": None, "description": "", "flags": {}}
    if region.ring is not None:
        return {**shape, "points": region.ring.tolist(), "shape_type": "polygon", "mask": None}
    top, left, pixels = region.window
    height, width = pixels.shape
    ends = [[float(left), float(top)], [float(left + width - 1), float(top + height - 1)]]
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return {**shape, "points": ends, "shape_type": "mask", "mask": text}
