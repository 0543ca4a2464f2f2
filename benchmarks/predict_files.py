"""`keras_semimed.predict` on mixed files: bad ones among them, killed in the middle and started again, and its speed.

Makes 200 files of several formats and many sizes, 10 of them damaged, and a Hermes model without training. Predicts
them in one go; in a second folder kills the command (SIGKILL) when a third is done and starts it again; compares both
folders byte by byte. Then prints images a second beside the bare network on images that are in memory.

    python -m benchmarks.predict_files --image-size 128
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.dicom_files import dicom

FORMATS = (".png", ".jpg", ".bmp", ".tif", ".dcm", ".png")
BAD = 10


def make_files(folder: Path, count: int) -> None:
    """Images of several formats and sizes, in two folders; the last `BAD` are cut off or empty."""
    rng = np.random.default_rng(0)
    for index in range(count):
        suffix = FORMATS[index % len(FORMATS)]
        file = folder / ("first", "second/below")[index % 2] / f"image {index:03d}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (int(rng.integers(200, 600)), int(rng.integers(200, 800)))
        smooth = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(shape[::-1])
        if suffix == ".dcm":
            file.write_bytes(dicom(np.asarray(smooth.convert("L"))))
        else:
            smooth.save(file)
        if index >= count - BAD:
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 3] if index % 2 else b"")


def command(model: Path, images: Path, output: Path) -> list[str]:
    """The command that is looked at."""
    return [sys.executable, "-m", "keras_semimed.predict", str(model), str(images), "--output", str(output)]


def done(output: Path) -> int:
    """How many images have a row."""
    table = output / "predictions.csv"
    return table.read_text().count("\n") - 1 if table.exists() else 0


def contents(output: Path) -> dict[str, object]:
    """Every file of an output folder; of the table the rows, whatever their order."""
    files: dict[str, object] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = path.relative_to(output).as_posix()
        files[name] = sorted(path.read_text().splitlines()) if path.suffix == ".csv" else path.read_bytes()
    return files


def main() -> int:
    """Runs the benchmark; returns 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="number of files (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=128, help="the model's input (default: %(default)s)")
    parser.add_argument("--encoder", default="resnet18", help="the model's encoder (default: %(default)s)")
    arguments = parser.parse_args()
    from keras_semimed.export import export
    from keras_semimed.models import Hermes

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder / "images", arguments.files)
        hermes = Hermes(image_size=arguments.image_size, encoder=arguments.encoder, total_steps=1)
        model = export(hermes, folder / "model.keras")
        arrays = np.zeros((arguments.files, arguments.image_size, arguments.image_size, 3), "uint8")
        model.predict(arrays[:8], batch_size=8, verbose=0)
        start = time.perf_counter()
        model.predict(arrays, batch_size=8, verbose=0)
        bare = arguments.files / (time.perf_counter() - start)

        whole, halves = folder / "whole", folder / "halves"
        run = subprocess.run(command(folder / "model.keras", folder / "images", whole), capture_output=True, text=True)
        print(run.stdout)
        process = subprocess.Popen(
            command(folder / "model.keras", folder / "images", halves), stdout=subprocess.DEVNULL
        )
        while process.poll() is None and done(halves) < arguments.files // 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = done(halves)
        again = subprocess.run(
            command(folder / "model.keras", folder / "images", halves), capture_output=True, text=True
        )
        print(again.stdout.splitlines()[0])
        equal = contents(whole) == contents(halves)
        listed = run.stdout.count(": ") and sum(f"image {i:03d}" in run.stdout for i in range(arguments.files))
        print(f"killed after {before} images; the folders are {'equal' if equal else 'DIFFERENT'}")
        print(f"{listed} bad files listed, of {BAD}; exit status {run.returncode}")
        print(f"the bare network: {bare:.1f} images/s")
        good = equal and listed == BAD and run.returncode == 1 and 0 < before < arguments.files - BAD
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
