"""CVAT's XML of images, "CVAT for images 1.1"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from keras_semimed.data.exchange.drawn import Drawn, DrawnImage
from keras_semimed.data.exchange.fields import number, read_xml, shown, size_of, text_of, whole_number
from keras_semimed.data.exchange.runs import from_lengths, lengths
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

FILE = "annotations.xml"


def read_cvat(file: Path) -> Export:
    """Reads the polygons, boxes, ellipses and masks of `annotations.xml`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, has a document type or is of a video.
    """
    root, where = read_xml(file), str(file)
    if root.tag != "annotations":
        raise ValueError(f"{where}: begins with <{root.tag}>, not <annotations>; export it as 'CVAT for images 1.1'")
    if root.find("track") is not None:
        raise ValueError(f"{where}: holds tracks of a video; export it as 'CVAT for images 1.1'")
    export = Export(where, labels=_labels(root))
    for element in root.iterfind("image"):
        name = text_of(element, "name", where)
        place = f"{where}: {name}"
        image = AnnotatedImage(name, place, size_of(element.get("height"), element.get("width"), place))
        export.images.append(image)
        for index, shape in enumerate(element):
            each = f"{place}: {shape.tag} {index + 1}"
            area = _area(shape, each)
            if area is None:
                export.leave_out(image, shape.tag, drawn=shape.tag != "tag")
                continue
            layer = int(number(shape.get("z_order", "0"), "z_order", each))
            image.annotations.append(Annotation(text_of(shape, "label", each), area, each, layer))
    return export


def _labels(root: ElementTree.Element) -> list[str]:
    """Names of the labels that a task, a project or a job declares, without those of parts of a skeleton."""
    names = [label.findtext("name") for label in root.iterfind("meta//labels/label") if not label.findtext("parent")]
    return list(dict.fromkeys(name for name in names if name))


def _area(shape: ElementTree.Element, where: str) -> Area | None:
    """What a shape covers; None for one that is no area."""

    def value(key: str) -> float:
        return number(text_of(shape, key, where), key, where)

    turn = number(shape.get("rotation", "0"), "rotation", where)
    if shape.tag == "polygon":
        return Polygons([_points(text_of(shape, "points", where), where)])
    if shape.tag == "box":
        left, top, right, bottom = (value(key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Polygons([turned(box(left, top, right, bottom), turn, (left + right) / 2, (top + bottom) / 2)])
    if shape.tag == "ellipse":
        return Ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    if shape.tag == "mask":
        left, top = int(value("left")), int(value("top"))
        width, height = (whole_number(text_of(shape, key, where), key, where, 1) for key in ("width", "height"))
        return Raster(partial(_decoded, text_of(shape, "rle", where), height, width, where), top, left)
    return None


def _points(text: str, where: str) -> np.ndarray:
    pairs = [pair.split(",") for pair in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{where}: its points must be written x,y;x,y, found {shown(text)}; export it again")
    return np.array([[number(value, "points", where) for value in pair] for pair in pairs], "float64")


def _decoded(rle: str, height: int, width: int, where: str) -> np.ndarray:
    """Run lengths, row by row of the mask's own box, to `(height, width)` bool."""
    runs = [whole_number(run, "rle", where) for run in rle.split(",")]
    return from_lengths(runs, height * width, where).reshape(height, width)


def write_cvat(folder: Path, images: Sequence[DrawnImage], labels: Sequence[str]) -> list[str]:
    """Writes `annotations.xml`; regions that are no polygons as masks.

    Returns:
        What to do with it.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    declared = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for label in labels:
        ElementTree.SubElement(ElementTree.SubElement(declared, "label"), "name").text = label
    for index, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", {"id": str(index), "name": image.name, **size})
        for region in image.regions:
            _add(element, region)
    ElementTree.indent(root)
    with whole_file(folder / FILE) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    return [
        f"CVAT: make a task of images/ with the labels {', '.join(labels)}, then upload {FILE} as 'CVAT 1.1'",
    ]


def _add(image: ElementTree.Element, region: Drawn) -> None:
    common = {"label": region.label, "source": "auto", "occluded": "0", "z_order": "0"}
    if region.ring is not None:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region.ring.tolist())
        ElementTree.SubElement(image, "polygon", {**common, "points": points})
        return
    top, left, pixels = region.window
    height, width = pixels.shape
    place = {"left": str(left), "top": str(top), "width": str(width), "height": str(height)}
    rle = ", ".join(map(str, lengths(pixels.ravel())))
    ElementTree.SubElement(image, "mask", {**common, "rle": rle, **place})
