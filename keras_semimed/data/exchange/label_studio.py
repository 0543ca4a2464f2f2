"""Label Studio's JSON of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from keras_semimed.data.exchange.brush import decode_brush, encode_brush
from keras_semimed.data.exchange.drawn import Drawn, DrawnImage, save_json
from keras_semimed.data.exchange.fields import corners, entry, number, read_json, shown, whole_number
from keras_semimed.data.exchange.shapes import (
    AnnotatedImage,
    Annotation,
    Area,
    Ellipse,
    Export,
    Polygons,
    Raster,
    box,
    turned,
)
from keras_semimed.files import whole_file

FILE = "tasks.json"
CONFIG = "label_config.xml"
URL = "/data/local-files/?d="
_IMAGE, _POLYGON, _BRUSH = "image", "polygon", "brush"


def is_label_studio(content: Any) -> bool:
    """Tells whether the content of a JSON file is a list of Label Studio's tasks."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "data" in content[0]


def read_label_studio(file: Path) -> Export:
    """Reads the polygons, rectangles, ellipses and brush strokes of the annotations; predictions are none.

    Cancelled annotations are left out. Of several annotations of one image that which is marked as ground truth counts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or an image has several annotations of which none is the ground truth.
    """
    tasks, where = read_json(file), str(file)
    if not is_label_studio(tasks):
        raise ValueError(f"{where}: is no list of tasks with `data`; export it as JSON, not as JSON-MIN")
    export, cancelled, predicted = Export(where), 0, 0
    for index, task in enumerate(tasks):
        place = f"{where}: task {task.get('id', index) if isinstance(task, dict) else index}"
        image = AnnotatedImage(image_name(_url(entry(task, "data", dict, place), place)), place)
        export.images.append(image)
        found = entry(task, "annotations", list, place)
        kept = [each for each in found if isinstance(each, dict) and not each.get("was_cancelled")]
        cancelled += len(found) - len(kept)
        truths = [each for each in kept if each.get("ground_truth")]
        if len(kept) > 1 and len(truths) != 1:
            raise ValueError(
                f"{place}: {image.name} has {len(kept)} annotations, {len(truths)} of them the ground truth; mark one "
                "of them as it, or delete the others"
            )
        image.looked_at = bool(kept)
        predicted += bool(not kept and task.get("predictions"))
        for annotation in truths or kept:
            _add(export, image, entry(annotation, "result", list, place))
    if cancelled:
        export.notes.append(f"cancelled annotations that were left out: {cancelled}")
    if predicted:
        export.notes.append(f"images with predictions that nobody has made annotations: {predicted}")
    return export


def _url(data: dict[str, Any], where: str) -> str:
    """The image of a task, whatever the project calls it."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    pictures = [value for key, value in texts.items() if key in ("image", "img")]
    found = pictures or [value for value in texts.values() if "/" in value or "." in value] or [""]
    if len(found) > 1 or not found[0]:
        raise ValueError(f"{where}: which of {shown(data)} is the image is not clear; call it `image` in the project")
    return found[0]


def image_name(url: str) -> str:
    """Returns the path of an image's file that a task's address names.

    It is what follows `?d=` of local files, the last part of uploaded ones, and the path of others.
    """
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    path = (local[0] if local else unquote(parts.path)).replace("\\", "/")
    return path.rpartition("/")[2] if "/data/upload/" in path else path.lstrip("/")


def _add(export: Export, image: AnnotatedImage, results: Sequence[Any]) -> None:
    """Adds the areas of one annotation."""
    for index, result in enumerate(results):
        place = f"{image.where}: result {index + 1} in {image.name}"
        value = result.get("value") if isinstance(result, dict) else None
        labels = (
            next((value[key] for key in value if key.endswith("labels")), None) if isinstance(value, dict) else None
        )
        if not isinstance(value, dict) or not isinstance(labels, list):
            if isinstance(result, dict) and result.get("type") in _BARE and _has_label(result.get("id"), results):
                continue  # its twin has the label
            drawn = isinstance(value, dict) and bool(_DRAWN & value.keys())
            export.leave_out(image, str(result.get("type")) if isinstance(result, dict) else shown(result), drawn)
            continue
        area = _area(result, value, image, place)
        if area is None:
            export.leave_out(image, str(result.get("type")))
            continue
        if len(labels) != 1 or not isinstance(labels[0], str):
            raise ValueError(f"{place}: must have one label, found {shown(labels)}; correct it in the tool")
        image.annotations.append(Annotation(labels[0], area, place))


# What only something that is drawn has; choices and texts about the image have none of it.
_DRAWN = {"points", "vertices", "rle", "x"}
_BARE = ("polygon", "rectangle", "ellipse", "brush")


def _has_label(number: Any, results: Sequence[Any]) -> bool:
    """Whether one of the results of that id says which label it has."""
    return any(isinstance(each, dict) and each.get("id") == number and each.get("type") == "labels" for each in results)


def _area(result: dict[str, Any], value: dict[str, Any], image: AnnotatedImage, where: str) -> Area | None:
    """What a result covers; None for one that is no area."""
    if not ({"points", "rle"} & value.keys() or {"x", "y", "width", "height"} <= value.keys() or "radiusX" in value):
        return None
    size = tuple(whole_number(result.get(f"original_{side}"), f"original_{side}", where, 1) for side in _SIDES)
    height, width = size
    if image.size not in (None, size):
        raise ValueError(f"{where}: is drawn on {size} (height, width), another annotation on {image.size}")
    image.size = (height, width)
    if result.get("image_rotation"):
        raise ValueError(f"{where}: was drawn on the turned image; turn it back in the tool and draw it again")

    def of(key: str, whole: int) -> float:
        return number(value.get(key), key, where) / 100 * whole

    turn = number(value.get("rotation") or 0, "rotation", where)
    if "points" in value:
        points = corners(value["points"], where) / 100 * (width, height)
        return Polygons([points if len(points) else np.zeros((1, 2))])
    if "rle" in value:
        return Raster(partial(decode_brush, entry(value, "rle", list, where), height, width, where))
    x, y = of("x", width), of("y", height)
    if "radiusX" in value:
        return Ellipse(x, y, of("radiusX", width), of("radiusY", height), turn)
    return Polygons([turned(box(x, y, x + of("width", width), y + of("height", height)), turn, x, y)])


_SIDES = ("height", "width")


def write_label_studio(folder: Path, images: Sequence[DrawnImage], labels: Sequence[str], url: str = URL) -> list[str]:
    """Writes `tasks.json` with the regions as predictions, those that are no polygons as brush strokes.

    Args:
        folder: Where it goes, with `label_config.xml`, the labelling interface that they belong to.
        images: The images.
        labels: The classes.
        url: What stands before the name of an image in its address.

    Returns:
        What to do with it.
    """
    tasks = [
        {
            "data": {_IMAGE: url + quote(image.name)},
            "predictions": [{"model_version": "keras_semimed", "result": _results(image)}],
        }
        for image in images
    ]
    save_json(folder / FILE, tasks)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _IMAGE, "value": f"${_IMAGE}"})
    for tag, name in (("PolygonLabels", _POLYGON), ("BrushLabels", _BRUSH)):
        control = ElementTree.SubElement(view, tag, {"name": name, "toName": _IMAGE})
        for label in labels:
            ElementTree.SubElement(control, "Label", {"value": label})
    ElementTree.indent(view)
    with whole_file(folder / CONFIG) as temporary:
        ElementTree.ElementTree(view).write(temporary, encoding="utf-8")
    return [
        f"Label Studio: paste {CONFIG} as the labelling interface, serve images/ as {url!r} and import {FILE}",
    ]


def _results(image: DrawnImage) -> list[dict[str, Any]]:
    common = {
        "to_name": _IMAGE,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
    }
    return [{"id": f"region{index}", **common, **_result(region, image)} for index, region in enumerate(image.regions)]


def _result(region: Drawn, image: DrawnImage) -> dict[str, Any]:
    if region.ring is not None:
        points = (region.ring * 100 / (image.width, image.height)).tolist()
        value = {"points": points, "closed": True, "polygonlabels": [region.label]}
        return {"from_name": _POLYGON, "type": "polygonlabels", "value": value}
    rle = encode_brush(region.window.whole(image.height, image.width))
    return {
        "from_name": _BRUSH,
        "type": "brushlabels",
        "value": {"format": "rle", "rle": rle, "brushlabels": [region.label]},
    }
