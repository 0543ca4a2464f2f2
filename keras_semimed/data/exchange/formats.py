"""Which tool an export is from."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from keras_semimed.data.exchange import coco, cvat, cvat_masks, label_studio, labelme
from keras_semimed.data.exchange.fields import read_json
from keras_semimed.data.exchange.shapes import Export

WRITERS = {
    "coco": coco.write_coco,
    "cvat": cvat.write_cvat,
    "labelme": labelme.write_labelme,
    "labelstudio": label_studio.write_label_studio,
}
"""What writes the files of a tool."""


def read_export(path: str | Path) -> Export:
    """Reads what CVAT, LabelMe, Label Studio or a tool that writes COCO exported.

    Args:
        path: A file: COCO's JSON of instances, CVAT's XML of images, the JSON of LabelMe or of Label Studio's tasks. Or
            an unpacked folder: CVAT's with `annotations.xml`, or `labelmap.txt` and `SegmentationClass/`, or one with
            LabelMe's files at any depth, or with one of the others' files.

    Raises:
        FileNotFoundError: If there is no such file, or none that is known in the folder.
        ValueError: If the file is damaged or of none of these tools.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the file or the unpacked folder of an export")
    if path.is_dir():
        return _read_folder(path)
    if zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is a zip file; unpack it and give the folder")
    if path.suffix.lower() == ".xml":
        return cvat.read_cvat(path)
    if path.suffix.lower() != ".json":
        raise ValueError(f"{path}: expected a .json or .xml file that an annotation tool exported, or a folder")
    kind = _kind(read_json(path))
    if kind is None:
        raise ValueError(
            f"{path}: is the JSON of no tool that is read; expected COCO instances (`images` and `annotations`), "
            "LabelMe (`shapes` and `imagePath`) or Label Studio (tasks with `data`)"
        )
    if kind == "labelme":
        return labelme.read_labelme([path])
    return coco.read_coco(path) if kind == "coco" else label_studio.read_label_studio(path)


def _read_folder(folder: Path) -> Export:
    if (folder / cvat.FILE).is_file():
        return cvat.read_cvat(folder / cvat.FILE)
    if (folder / cvat_masks.LABELS).is_file():
        return cvat_masks.read_cvat_masks(folder)
    files = sorted(file for file in folder.rglob("*.json") if not _hidden(file, folder))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no export: no {cvat.FILE}, no {cvat_masks.LABELS} and no .json file; unpack it there"
        )
    if len(files) == 1:
        return read_export(files[0])
    for file in files:
        if _kind(read_json(file)) != "labelme":
            raise ValueError(f"{file}: is one of {len(files)} .json files in {folder}, and none of LabelMe's; name one")
    return labelme.read_labelme(files)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _kind(content: Any) -> str | None:
    if labelme.is_labelme(content):
        return "labelme"
    if coco.is_coco(content):
        return "coco"
    return "labelstudio" if label_studio.is_label_studio(content) else None
