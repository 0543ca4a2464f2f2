"""Files that people report as read wrongly without a word, with random values.

Makes files of random format, depth, colour, palette, transparency, levels and lookup tables whose content is known.
Each must be read rightly or be refused by its name; prints how many of each kind were.

    python -m benchmarks.fuzz_reported --count 2000
    python -m benchmarks.fuzz_reported --count 2000 --predict

`--predict` lets a stand-in for a model predict the images, and compares its masks with those that it makes of
training's own reading of the same files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import benchmarks.random_dicom  # noqa: F401  registers its kinds
from benchmarks.fuzz_cases import Case, good_folder, kind, odd_image, random_pixels
from benchmarks.random_images import MAKERS as IMAGES
from benchmarks.random_images import Made
from keras_semimed.data import read_folder
from keras_semimed.data.check import Declarations, check_folder
from keras_semimed.data.folder import Folder
from keras_semimed.data.images import read_image
from keras_semimed.data.images.resizing import class_mask
from keras_semimed.data.images.rules import ReadingRules
from keras_semimed.files import read_table
from keras_semimed.prediction import KerasPredictor, predict_files
from tests.data.dicom_files import dicom
from tests.data.image_files import encoded


def _lesion(rng: np.random.Generator) -> np.ndarray:
    """A rectangle `(16, 16)` that resizing to 16 leaves as it is."""
    top, left = rng.integers(0, 8, 2)
    lesion = np.zeros((16, 16), bool)
    lesion[top : top + 7, left : left + 7] = True
    return lesion


def _mask(path, content: bytes, expected: np.ndarray | None) -> Case:
    (good_folder(path) / "labeled/masks/good.png").write_bytes(content)
    return Case(path, "good.png", None if expected is None else expected.astype("uint8"))


def _palette(lesion: np.ndarray, colours: list[tuple[int, ...]]) -> bytes:
    image = Image.fromarray(lesion.astype("uint8"), "P")
    image.putpalette([int(value) for colour in colours for value in colour])
    return encoded(image)


@kind("palette mask")
def palette(rng, path):
    """Black and a colour; with black in the first place, or in the second."""
    lesion, colour = _lesion(rng), tuple(rng.integers(1, 256, 3))
    if rng.random() < 0.5:
        return _mask(path, _palette(lesion, [(0, 0, 0), colour]), lesion)
    return _mask(path, _palette(~lesion, [colour, (0, 0, 0)]), None)


@kind("mask with transparency")
def transparency(rng, path):
    """Drawn in a grey on transparent: right where the shape is in the grey, too."""
    lesion, ground = _lesion(rng), int(rng.choice([0, 255]))
    inside = int(rng.choice([0, 255]))
    grey = np.where(lesion, inside, ground)
    alpha = np.where(lesion, 255, 0) if rng.random() < 0.7 else np.full(lesion.shape, 255)
    content = encoded(np.stack([grey, grey, grey, alpha], -1).astype("uint8"))
    if inside == ground:
        plain = alpha.min() == 255  # one grey, nothing hidden
        return _mask(path, content, np.full(lesion.shape, inside > 0) if plain else None)
    shown = np.where(alpha > 0, grey, 0)
    return _mask(path, content, shown > 0 if (shown == grey).all() else None)


@kind("two levels of a mask")
def levels(rng, path):
    """Background 0 and a lesion of any value: 1 and 255 are known, others are not."""
    lesion, white = _lesion(rng), int(rng.choice([1, 255, *rng.integers(2, 255, 4)]))
    return _mask(path, encoded((white * lesion).astype("uint8")), lesion if white in (1, 255) else None)


@kind("lossy mask with a third level")
def lossy(rng, path):
    """A JPEG of large areas."""
    mask = np.zeros((48, 48), "uint8")
    mask[4:22, 4:40] = int(rng.integers(60, 196))
    if rng.random() < 0.7:
        mask[26:44, 4:40] = 255
    case = _mask(path, encoded(mask, "JPEG", quality=int(rng.integers(60, 96))), None)
    (path / "labeled/images/good.png").write_bytes(encoded(random_pixels(rng, 48)[:, :1].repeat(48, 1)))
    return case


@kind("16-bit colour")
def colour16(rng, path):
    """A TIFF whose colours use all bits, or the lower ones."""
    import tifffile

    pixels = random_pixels(rng).astype("uint16")
    bits = int(rng.choice([8, 12, 16]))
    file = io.BytesIO()
    tifffile.imwrite(file, pixels << (bits - 8), photometric="rgb")
    return odd_image(path, file.getvalue(), pixels.astype("uint8") if bits == 16 else None, "odd.tif")


@kind("bits of a DICOM image")
def bits(rng, path):
    """Stored bits declared or not, either way round, with values that use all of them."""
    used, declared = (int(value) for value in rng.choice([10, 12, 14, 16], 2))
    declared = max(used, declared)
    pixels = rng.integers(0, 2**used, (20, 31)).astype("uint16")
    pixels[0, :2] = 0, 2**used - 1
    inverted = bool(rng.random() < 0.5)
    content = dicom(pixels, "MONOCHROME1" if inverted else "MONOCHROME2", BitsStored=declared)
    white = 2**declared - 1
    shown = np.rint((white - pixels.astype("float64") if inverted else pixels) / white * 255).astype("uint8")
    # A sixteenth of the scale is the least that an image has to use.
    return odd_image(path, content, shown if declared - used < 4 else None, "odd.dcm")


@kind("lookup table of a DICOM image")
def lookup_table(rng, path):
    """A table that holds as many bits as it declares, or fewer."""
    from pydicom.dataset import Dataset

    held = int(rng.choice([8, 12]))
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, int(rng.choice([held, 16]))])
    entries = np.sort(rng.integers(0, 2**held, 4096))
    entries[-1] = 2**held - 1
    table.add_new(0x00283006, "US", entries.tolist())
    pixels = rng.integers(0, 4096, (20, 31)).astype("uint16")
    pixels[0, 0] = 4095
    shown = np.rint(entries[pixels] / (2**held - 1) * 255).astype("uint8")
    return odd_image(path, dicom(pixels, BitsStored=12, VOILUTSequence=[table]), shown, "odd.dcm")


@kind("further formats")
def formats(rng, path):
    """WebP without loss, GIF, PGM and JPEG 2000 without loss, of grey images."""
    grey = random_pixels(rng)[..., 0]
    name, options = [("WEBP", {"lossless": True}), ("GIF", {}), ("PPM", {}), ("JPEG2000", {})][int(rng.integers(4))]
    suffix = {"WEBP": "webp", "GIF": "gif", "PPM": "pgm", "JPEG2000": "jp2"}[name]
    return odd_image(path, encoded(grey, name, **options), grey, f"odd.{suffix}")


SIZE = 32
"""Side of the squares that training and prediction bring images to."""
LEVELS = 7


class Levels:
    """A stand-in for a trained model that shows what it was given: seven levels of grey, and the mean colour."""

    input_shape = (None, SIZE, SIZE, 3)
    variables = ()

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns one-hot levels `(N, S, S, 7)` and the means of red, green and blue, and what is left to 1."""
        values = np.asarray(images, "float64")
        means = values.mean((1, 2)) / (3 * 255)
        mask = np.eye(LEVELS)[np.minimum(values.mean(-1) * LEVELS // 256, LEVELS - 1).astype(int)]
        return {"mask": mask, "label": np.concatenate([means, 1 - means.sum(1, keepdims=True)], 1)}


def make(index: int, seed: int) -> tuple[str, Made]:
    """The file of an index and its kind."""
    kinds = list(IMAGES)
    name = kinds[index % len(kinds)]
    return name, IMAGES[name](np.random.default_rng([seed, index]))


def put(made: Made, folder: Path) -> Path:
    """Writes a file into a folder that is fine otherwise; its place."""
    good_folder(folder)
    file = folder / ("labeled/masks/good.png" if made.mask else f"unlabeled/{made.name}")
    file.write_bytes(made.content)
    return file


def read_as_training(made: Made, folder: Path, size: int) -> Folder | str:
    """What `read_folder` makes of it, or what it says is wrong."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return read_folder(folder, size, intensity_range=made.intensity_range)
    except (ValueError, OSError) as error:
        return str(error)


def reading(made: Made, folder: Path) -> str:
    """Reads a file every way that training has, and says how it went."""
    file = put(made, folder)
    found = read_as_training(made, folder, 16)
    problems = check_folder(folder, Declarations(intensity_range=made.intensity_range)).problems
    if isinstance(found, str):
        if not problems or problems[0] != found:
            return f"the check says {problems}, reading says {found}"
        if made.expected is not None and not made.rare:
            return f"should have been read: {found}"
        return "refused" if file.name in found else f"refused without its name: {found}"
    if problems:
        return f"was read, and the check says {problems[0]}"
    if made.expected is None:
        return "was read and should have been refused"
    pixels = found.labeled.masks[0] if made.mask else read_image(file, intensity_range=made.intensity_range)
    return difference(np.asarray(pixels, "float64"), made)


def difference(pixels: np.ndarray, made: Made) -> str:
    """Compares what was read with what is right."""
    expected = np.asarray(made.expected, "float64")
    if pixels.ndim == 3 and expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, -1)
    if pixels.shape != expected.shape:
        return f"was read as {pixels.shape}, expected {expected.shape}"
    away = np.abs(pixels - expected)
    right = away.max() <= made.tolerance and away.mean() <= max(made.tolerance / 6, 0.6)
    return "read" if right else f"was read wrongly: off by up to {away.max():g}, {away.mean():.2f} on average"


def predicting(made: dict[str, Made], folder: Path) -> dict[str, str]:
    """Predicts files as a folder and compares the masks with those of training's own reading of each file.

    Args:
        made: Images by a name, all with one range of intensities.
        folder: An empty folder.
    """
    limits = next(iter(made.values())).intensity_range
    model = KerasPredictor(Levels(), ReadingRules(SIZE, intensity_range=limits))
    files = {}
    for name, each in made.items():
        files[name] = folder / "in" / name / each.name
        files[name].parent.mkdir(parents=True)
        files[name].write_bytes(each.content)
    with contextlib.redirect_stderr(io.StringIO()):
        report = predict_files(model, files, folder / "out")
    rows = {row["file"]: row for row in read_table(folder / "out/predictions.csv")}
    outcomes = {}
    for name, each in made.items():
        put(each, folder / name)
        found = read_as_training(each, folder / name, SIZE)
        if isinstance(found, str) or name in report.problems:
            alike = isinstance(found, str) and found.endswith(report.problems.get(name, "nothing"))
            outcomes[name] = "refused" if alike else f"training: {found}; prediction: {report.problems.get(name)}"
            continue
        place = list(found.unlabeled.names).index("a")
        values = model.predict(found.unlabeled.images[place : place + 1])
        mask = np.asarray(Image.open(folder / "out/masks" / f"{name}.png"))
        means = [float(rows[name][f"probability_{index}"]) for index in range(4)]
        same = np.array_equal(mask, class_mask(values["mask"][0], mask.shape))
        same &= mask.shape == np.asarray(each.expected).shape[:2] and np.allclose(means, values["label"][0], atol=2e-6)
        outcomes[name] = "read" if same else "is predicted otherwise than training reads it"
    return outcomes


def run(count: int, seed: int, root: Path, predict: bool) -> tuple[dict[str, Counter[str]], list[str]]:
    """Makes and tries so many files; counts by kind and outcome, and a line for each that went wrong."""
    outcomes: list[tuple[str, str]] = []
    waiting: dict[object, dict[str, Made]] = defaultdict(dict)
    kinds: dict[str, str] = {}
    for index in range(count):
        name, made = make(index, seed)
        if not predict:
            outcomes.append((name, reading(made, root / str(index))))
        elif not made.mask:
            kinds[str(index)] = name
            waiting[made.intensity_range][str(index)] = made
        shutil.rmtree(root / str(index), ignore_errors=True)
    for number, batch in enumerate(waiting.values()):
        found = predicting(batch, root / f"batch {number}")
        outcomes += [(kinds[index], outcome) for index, outcome in found.items()]
        shutil.rmtree(root / f"batch {number}")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in outcomes:
        table[name][outcome if outcome in ("read", "refused") else "wrong"] += 1
    return table, [f"{name}: {outcome}" for name, outcome in outcomes if outcome not in ("read", "refused")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of counts; the exit status is 1 if a file was read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--predict", action="store_true", help="predict the images, and compare with training's reading"
    )
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        table, wrong = run(given.count, given.seed, Path(root), given.predict)
    print(f"| {'kind':50} | files | read | refused | wrong |\n| --- | --- | --- | --- | --- |")
    total = sum(table.values(), Counter())
    for name, counts in [*table.items(), ("all", total)]:
        print(f"| {name:50} | {counts.total()} | {counts['read']} | {counts['refused']} | {counts['wrong']} |")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
