"""COCO's JSON of instances: polygons, run lengths, and run lengths as COCO's own tools compress them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_semimed.data.exchange.drawn import Drawn, DrawnImage, save_json
from keras_semimed.data.exchange.fields import corners, entry, read_json, shown, size_of, whole_number
from keras_semimed.data.exchange.runs import from_lengths, lengths, lengths_of_text
from keras_semimed.data.exchange.shapes import AnnotatedImage, Annotation, Area, Export, Polygons, Raster

FILE = "instances.json"


def is_coco(content: Any) -> bool:
    """Tells by its keys whether the content of a JSON file is COCO's."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco(file: Path) -> Export:
    """Reads the areas of `instances.json`; a crowd is an area as any other.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or names images or categories that it does not declare.
    """
    content, where = read_json(file), str(file)
    export = Export(where)
    names: dict[int, str] = {}
    for index, category in enumerate(entry(content, "categories", list, where)):
        place = f"{where}: categories[{index}]"
        number = whole_number(entry(category, "id", int, place), "id", place)
        if names.setdefault(number, entry(category, "name", str, place)) != category["name"]:
            raise ValueError(f"{place}: id {number} is {names[number]!r} and {category['name']!r}; export it again")
    export.labels = list(dict.fromkeys(names.values()))
    images: dict[int, AnnotatedImage] = {}
    for index, image in enumerate(entry(content, "images", list, where)):
        place = f"{where}: images[{index}]"
        number, name = entry(image, "id", int, place), entry(image, "file_name", str, place)
        if number in images:
            raise ValueError(f"{place}: id {number} is {images[number].name!r} and {name!r}; export it again")
        size = size_of(image.get("height"), image.get("width"), place)
        images[number] = AnnotatedImage(name, f"{where}: {name}", size)
    export.images = list(images.values())
    for index, annotation in enumerate(entry(content, "annotations", list, where)):
        place = f"{where}: annotations[{index}]"
        image = images.get(entry(annotation, "image_id", int, place))
        if image is None:
            raise ValueError(f"{place}: image_id {annotation['image_id']} is no image of the file; export it again")
        label = names.get(entry(annotation, "category_id", int, place))
        if label is None:
            raise ValueError(f"{place}: category_id {annotation['category_id']} is no category of the file")
        place += f" in {image.name}"
        area = _area(annotation.get("segmentation"), image, place)
        if area is None:
            export.leave_out(image, "box without segmentation" if annotation.get("bbox") else "no segmentation")
        else:
            image.annotations.append(Annotation(label, area, place))
    return export


def _area(segmentation: Any, image: AnnotatedImage, where: str) -> Area | None:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        size = entry(segmentation, "size", list, where)
        if len(size) != 2:
            raise ValueError(f"{where}: the `size` of its run lengths must be [height, width], found {shown(size)}")
        image.size = image.size or size_of(size[0], size[1], where)
        if tuple(size) != image.size:
            raise ValueError(f"{where}: its run lengths are {size} (height, width), its image {list(image.size or ())}")
        return Raster(partial(_decoded, segmentation.get("counts"), size[0], size[1], where))
    if not isinstance(segmentation, list) or not all(isinstance(ring, list) for ring in segmentation):
        raise ValueError(f"{where}: its segmentation must be lists of polygons or run lengths; export it again")
    rings = []
    for ring in segmentation:
        if len(ring) % 2:
            raise ValueError(f"{where}: a polygon has {len(ring)} numbers, not pairs of x and y; export it again")
        rings.append(corners([list(pair) for pair in zip(ring[::2], ring[1::2], strict=True)], where))
    return Polygons([ring for ring in rings if len(ring)] or [np.zeros((1, 2))])


def _decoded(counts: Any, height: int, width: int, where: str) -> np.ndarray:
    """Run lengths, column by column, to `(H, W)` bool."""
    if isinstance(counts, str):
        counts = lengths_of_text(counts, where)
    if not isinstance(counts, list):
        raise ValueError(f"{where}: its `counts` must be a list or a text, found {shown(counts)}; export it again")
    return from_lengths(counts, height * width, where).reshape(width, height).T


def write_coco(folder: Path, images: Sequence[DrawnImage], labels: Sequence[str]) -> list[str]:
    """Writes `instances.json`; regions that are no polygons as run lengths, which COCO keeps for crowds.

    Returns:
        What to do with it.
    """
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        entries.append({"id": number, "file_name": image.name, "width": image.width, "height": image.height})
        for region in image.regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[region.label],
                    "segmentation": _segmentation(region, image),
                    "area": int(region.window.pixels.sum()),
                    "bbox": [region.window.left, region.window.top, *region.window.pixels.shape[::-1]],
                    "iscrowd": int(region.ring is None),
                }
            )
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()]
    save_json(folder / FILE, {"images": entries, "categories": categories, "annotations": annotations})
    return [f"COCO: load images/ into the tool, then {FILE}"]


def _segmentation(region: Drawn, image: DrawnImage) -> list[list[float]] | dict[str, Any]:
    if region.ring is not None:
        return [region.ring.ravel().tolist()]
    whole = region.window.whole(image.height, image.width)
    return {"size": [image.height, image.width], "counts": lengths(whole.T.ravel())}
