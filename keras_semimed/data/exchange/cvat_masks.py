"""CVAT's "Segmentation mask 1.1": a picture of colours for each image, and a list of what the colours mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from keras_semimed.data.exchange.fields import read_text, shown
from keras_semimed.data.exchange.shapes import AnnotatedImage, Annotation, Export, Raster
from keras_semimed.data.images.mask_values import code_name, codes_of
from keras_semimed.data.images.reading import read_values
from keras_semimed.data.parallel import in_parallel

LABELS = "labelmap.txt"
MASKS = "SegmentationClass"
BACKGROUND = "background"


def read_cvat_masks(folder: Path) -> Export:
    """Reads `labelmap.txt` and the pictures in `SegmentationClass/`.

    Raises:
        FileNotFoundError: If one of them is missing.
        ValueError: If one is damaged, or a picture holds a colour that is not in the list.
    """
    colours = _colours(folder / LABELS)
    files = sorted((folder / MASKS).rglob("*.png"))
    if not files:
        raise FileNotFoundError(f"{folder / MASKS} holds no picture (.png); export it again")
    export = Export(str(folder), labels=[label for label in colours.values() if label != BACKGROUND])

    def read(file: Path) -> AnnotatedImage:
        pixels = codes_of(read_values(file, palette_colours=True).pixels)
        name = file.relative_to(folder / MASKS).with_suffix("").as_posix()
        image = AnnotatedImage(name, str(file), (int(pixels.shape[0]), int(pixels.shape[1])))
        for code in np.unique(pixels).tolist():
            if code not in colours:
                raise ValueError(f"{file}: holds {code_name(code)}, which {LABELS} does not name; export it again")
            if colours[code] != BACKGROUND:
                packed = np.packbits(pixels == code)
                area = Raster(partial(_unpacked, packed, *pixels.shape))
                image.annotations.append(Annotation(colours[code], area, f"{file}: {code_name(code)}"))
        return image

    export.images = list(in_parallel(read, files, "reading masks"))
    return export


def _unpacked(packed: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)


def _colours(file: Path) -> dict[int, str]:
    """The name of each colour's code; lines are `name:red,green,blue:parts:actions`."""
    found: dict[int, str] = {}
    try:
        lines = read_text(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error}); export it again") from error
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = [int(value) if value.strip().isdecimal() else 256 for value in rest.partition(":")[0].split(",")]
        if len(values) != 3 or max(values) > 255:
            raise ValueError(f"{file}: expected lines 'name:red,green,blue::', found {shown(line)}; export it again")
        code = int(codes_of(np.array(values).reshape(1, 1, 3))[0, 0])
        if found.setdefault(code, name) != name:
            raise ValueError(f"{file}: {name!r} and {found[code]!r} have one colour; give them different ones")
    return found
