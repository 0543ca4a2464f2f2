"""Made exports that lie and read as those of CVAT, LabelMe, Label Studio and COCO do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

# A box from column 2 to 7 and row 1 to 3, half-open, in images 12 wide and 8 high.
BOX = [[2.0, 1.0], [8.0, 1.0], [8.0, 4.0], [2.0, 4.0]]
HEIGHT, WIDTH = 8, 12


def expected_box(value: int = 1) -> np.ndarray:
    """The mask of `BOX`."""
    mask = np.zeros((HEIGHT, WIDTH), "uint8")
    mask[1:4, 2:8] = value
    return mask


def save_images(folder: Path, *names: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Saves pictures of noise, each another one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name) + sum(name.encode())).integers(0, 255, size, "uint8")
        Image.fromarray(pixels).save(folder / name)
    return folder


def coco(
    *annotations: dict, images: tuple[str, ...] = ("a.png",), categories: tuple[tuple[int, str], ...] = ()
) -> dict:
    """COCO instances; images are numbered from 7, and one category has the number 3."""
    return {
        "info": {"description": ""},
        "licenses": [{"id": 0, "name": "", "url": ""}],
        "images": [
            {"id": 7 + index, "file_name": name, "width": WIDTH, "height": HEIGHT, "license": 0, "date_captured": 0}
            for index, name in enumerate(images)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for number, name in categories or ((3, "lesion"),)
        ],
        "annotations": [
            {"id": 1 + index, "image_id": 7, "category_id": 3, "iscrowd": 0, "bbox": [2, 1, 6, 3], "area": 18} | each
            for index, each in enumerate(annotations)
        ],
    }


def coco_polygon(**further) -> dict:
    return {"segmentation": [[number for pair in BOX for number in pair]], **further}


def cvat(shapes: str, name: str = "a.png", labels: tuple[str, ...] = ("lesion", "polyp"), images: str = "") -> str:
    """CVAT for images 1.1."""
    declared = "".join(
        f"<label><name>{label}</name><color>#ff0000</color><type>any</type><attributes></attributes></label>"
        for label in labels
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job><id>4</id><size>1</size><mode>annotation</mode><overlap>0</overlap><created>2026-01-02 03:04:05</created>
      <labels>{declared}</labels></job>
    <dumped>2026-01-02 03:04:06</dumped>
  </meta>
  <image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>{images}
</annotations>"""


def cvat_polygon(label: str = "lesion", z_order: int = 0, dx: float = 0) -> str:
    points = ";".join(f"{x + dx:.2f},{y:.2f}" for x, y in BOX)
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{z_order}"></polygon>'


def labelme(*shapes: dict, path: str = "a.png") -> dict:
    """One of LabelMe's files."""
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {
                "label": "lesion",
                "points": BOX,
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            | shape
            for shape in shapes
        ],
        "imagePath": path,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def result(kind: str, value: dict, label: str = "lesion", **further) -> dict:
    """One region of Label Studio; `value` in per cent."""
    return {
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "image",
        "origin": "manual",
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
        **further,
    }


def percent_box(**further) -> dict:
    return result(
        "polygonlabels", {"points": [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in BOX], "closed": True}, **further
    )


def task(*results: dict, image: str = "/data/upload/3/1a2b3c4d-a.png", **annotation) -> dict:
    """One task with one annotation."""
    made = {"id": 11, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}
    return {
        "id": 5,
        "file_upload": "1a2b3c4d-a.png",
        "data": {"image": image},
        "annotations": [{**made, **annotation}],
        "predictions": [],
        "meta": {},
    }


def save(path: Path, content: dict | list | str) -> Path:
    """Writes an export."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path
