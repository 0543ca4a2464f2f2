"""Builds sdist and wheel and uses the wheel in an environment that also has Hugging Face's `datasets`.

A wheel that installed a top-level `datasets` would overwrite that package; one that missed the builders' README or
citations would fail only at a user's. The command `semimed` trains, compares, predicts and exports from the wheel, in a
folder that knows nothing of the clone. The heavy dependencies are borrowed from the running environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILDERS = "keras_semimed/data/builders"
DATA_FILES = (
    "keras_semimed/data/published",
    "keras_semimed/evaluation/published",
    "keras_semimed/evaluation/templates",
)

# Runs in the clean environment; its arguments are that environment's folder and a folder for data.
PROBE = """
import importlib, pkgutil, sys
from pathlib import Path

import datasets
import keras_semimed
import keras_semimed.data.builders as builders

environment, data_dir = Path(sys.argv[1]), sys.argv[2]
for module in (datasets, keras_semimed):
    assert Path(module.__file__).is_relative_to(environment), f"{module.__name__} comes from {module.__file__}"
assert callable(datasets.load_dataset), f"{datasets.__file__} is not Hugging Face's datasets"

names = [module.name for module in pkgutil.iter_modules(builders.__path__) if module.ispkg]
assert "busi" in names, f"no builder busi in the wheel, only {names}"
for name in names:
    module = importlib.import_module(f"keras_semimed.data.builders.{name}.{name}_dataset_builder")
    info = module.Builder(data_dir=data_dir).info
    for part in ("description", "citation", "features"):
        assert getattr(info, part), f"builder {name} has no {part} in the wheel"
    print(f"{info.full_name}: {sorted(info.features)}")
"""


TINY = "--test 0.3 --encoder resnet_tiny --weights none --image-size 32 --steps 4 --batch-size 2 --pseudo-labels 4"
COMMANDS = (
    "--help",
    "--version",
    "data list",
    "check images",
    f"train images --method fixmatch --output runs/fixmatch {TINY}",
    "report runs/fixmatch",
    "compare runs/fixmatch runs/copy --markdown table.md",
    "predict runs/fixmatch/model.keras images/unlabeled --output predicted",
    "export runs/fixmatch exported.keras",
)
"""What the console script must do, one after the other."""
LEFT = (
    *("runs/fixmatch/config.yaml", "runs/fixmatch/report.html", "table.md"),
    *("predicted/predictions.csv", "exported.keras", "exported.keras.md"),
)
"""What they leave."""
REFUSED = "train images --method fixmatch --output runs/refused"
"""Without a test part: one sentence."""


def copy_sources(target: Path) -> None:
    """Copies the checkout without build results, so that none of them can slip into the wheel."""
    anywhere = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
    on_top = {Path(sys.prefix).name, "build", "dist", "runs"}  # deeper, such a name is a package's

    def ignored(folder: str, names: list[str]) -> set[str]:
        return anywhere(folder, names) | (on_top & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, target, symlinks=True, ignore=ignored)


def build(sources: Path, target: Path, *options: str) -> Path:
    """Builds into `target` and returns the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), *options, str(sources)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise SystemExit(result.stdout)
    (wheel,) = target.glob("*.whl")
    return wheel


def check_contents(wheel: Path, other: Path, sources: Path) -> None:
    """Checks the top level, the builders' files and those that modules read, and that both builds agree."""
    names = set(zipfile.ZipFile(wheel).namelist())
    top_level = {name.split("/")[0] for name in names}
    unexpected = {name for name in top_level if name != "keras_semimed" and not name.endswith(".dist-info")}
    if unexpected:
        raise SystemExit(f"{wheel.name} installs {sorted(unexpected)}; expected only keras_semimed.")
    folder = sources / "datasets"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    read = {path.relative_to(sources).as_posix() for name in DATA_FILES for path in (sources / name).iterdir()}
    missing = ({f"{BUILDERS}/{file}" for file in files} | read) - names
    if missing:
        raise SystemExit(f"{wheel.name} lacks {sorted(missing)}; add them to [tool.setuptools.package-data].")
    difference = names ^ set(zipfile.ZipFile(other).namelist())
    if difference:
        raise SystemExit(f"The wheel built from the sdist and the one from the checkout differ: {sorted(difference)}.")
    print(f"{wheel.name}: {len(names)} files, {len(files)} of them builders'")


def create_environment(folder: Path, wheel: Path) -> Path:
    """Returns the Python of a new environment with the wheel, Hugging Face's datasets and borrowed dependencies."""
    venv.create(folder)
    python = folder / "bin" / "python"
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-warn-conflicts"]
    subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt"), "datasets"], check=True, cwd=folder)
    subprocess.run([*install, "--no-deps", "--force-reinstall", str(wheel)], check=True, cwd=folder)
    return python


def make_images(folder: Path) -> None:
    """Writes 10 images with masks and 6 without: a bright square somewhere on noise."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part, count in {"labeled/images": 10, "unlabeled": 6}.items():
        (folder / part).mkdir(parents=True)
        for index in range(count):
            image, mask = random.integers(0, 60, (48, 48)).astype("uint8"), np.zeros((48, 48), "uint8")
            top, left = random.integers(2, 26, 2)
            image[top : top + 20, left : left + 20] += 120
            mask[top : top + 20, left : left + 20] = 255
            Image.fromarray(image).save(folder / part / f"{part[0]}{index}.png")
            if part != "unlabeled":
                (folder / "labeled/masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save(folder / "labeled/masks" / f"{part[0]}{index}.png")


def use_command(environment: Path, place: Path) -> None:
    """Runs the console script in a folder of its own, where neither the clone nor PYTHONPATH can help."""
    make_images(place / "images")
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    variables = {**given, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}
    script = str(environment / "bin" / "semimed")
    for words in (*COMMANDS, REFUSED):
        if words.startswith("compare"):  # another training would cost half a minute
            shutil.copytree(place / "runs/fixmatch", place / "runs/copy")
        start = time.perf_counter()
        done = subprocess.run([script, *words.split()], cwd=place, env=variables, capture_output=True, text=True)
        print(f"semimed {words}: {time.perf_counter() - start:.1f} s", flush=True)
        if words == REFUSED:
            if done.returncode != 2 or "--test 0.3" not in done.stderr or (place / "runs/refused").exists():
                raise SystemExit(f"{done.stdout}{done.stderr}semimed {words}: expected one sentence and exit code 2.")
        elif done.returncode:
            raise SystemExit(f"{done.stdout}{done.stderr}semimed {words} ended with {done.returncode} from the wheel.")
    if missing := [name for name in LEFT if not (place / name).is_file()]:
        raise SystemExit(f"The commands of the wheel did not write {missing}.")


def main() -> None:
    """Runs every check; the exit status tells."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        sources = work / "sources"
        copy_sources(sources)
        from_checkout = build(sources, work / "from_checkout", "--wheel")
        wheel = build(sources, work / "dist")
        check_contents(wheel, from_checkout, sources)
        environment = work / "environment"
        python = create_environment(environment, wheel)
        data_dir = work / "data"
        probe = work / "probe.py"
        probe.write_text(PROBE)
        # -I: neither the script's folder nor PYTHONPATH can supply the modules.
        result = subprocess.run([str(python), "-I", str(probe), str(environment), str(data_dir)], cwd=work)
        if result.returncode:
            raise SystemExit("The wheel does not work in a clean environment: see above.")
        use_command(environment, work / "elsewhere")
    print("wheel check passed")


if __name__ == "__main__":
    main()
