"""What the documents name is there."""

from __future__ import annotations

import ast
import csv
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
EQUATION_PAGES = [ROOT / "docs" / "hermes.md", ROOT / "docs" / "loco.md", *METHOD_PAGES]


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find(name: str) -> Path | None:
    """The file that a document means by a name."""
    places = [ROOT / name, ROOT / "keras_semimed" / name]
    places += [] if "/" in name else (ROOT / "tests").rglob(name)
    return next((place for place in places if place.is_file()), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document):
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w./]+\.py)`", text):
        assert find(name), f"{document.name} names {name}"
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        target = document.parent / link if link else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}#{anchor}"
    for recipe in re.findall(r"python -m (recipes\.\w+|benchmarks\.\w+)", text):
        assert (ROOT / (recipe.replace(".", "/") + ".py")).is_file(), f"{document.name} runs {recipe}"


def table_rows(document: Path, first: str) -> list[list[str]]:
    """The rows of the table whose first column has that title."""
    text = document.read_text(encoding="utf-8")
    table = re.search(rf"^\| {first} \|.*\n\| ---.*\n((?:\|.*\n?)+)", text, re.M)
    assert table, f"{document.name} has no table that begins with {first!r}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[1].splitlines()]


def test_every_reported_fault_has_a_test():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = table_rows(ROOT / "docs" / "reading_files.md", "no.")
    assert [row[0] for row in rows][:12] == [f"F{number}" for number in range(1, 13)]
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named and all(f"def {name}(" in tests for name in named), row[-1]


def test_every_method_has_a_row_and_a_page():
    from keras_semimed.models import METHODS

    rows = {row[0].strip("`"): row for row in table_rows(ROOT / "README.md", "method")}
    assert rows.keys() == {method.__name__ for method in METHODS.values()}
    for name, method in METHODS.items():
        if name != "supervised":
            assert re.search(rf"\]\(docs/(methods/)?{name}\.md\)", rows[method.__name__][-1]), name


@pytest.mark.parametrize("page", EQUATION_PAGES, ids=lambda path: path.stem)
def test_an_equation_is_found_in_its_file_and_in_its_test(page):
    for row in table_rows(page, "equation"):
        equation, code, test = row[0], row[-2], row[-1]
        for cell, kind in ((code, "code"), (test, "test")):
            named = re.findall(r"`([\w./]+\.py)`(?: \(((?:`\w+`(?:, )?)+)\))?", cell)
            assert named, f"{page.name}, {equation}: no file of the {kind}"
            for name, symbols in named:
                path = find(name)
                assert path, f"{page.name}, {equation}: {name}"
                assert symbols or kind == "test", f"{page.name}, {equation}: where in {name}"
                for symbol in re.findall(r"\w+", symbols):
                    found = re.search(rf"^\s*(def|class) {symbol}\b", path.read_text(encoding="utf-8"), re.M)
                    assert found, f"{page.name}, {equation}: no {symbol} in {name}"


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda path: path.stem)
def test_arguments_and_defaults_of_a_page_are_those_of_its_method(page):
    from keras_semimed.models import METHODS

    own = inspect.signature(METHODS[page.stem].__init__).parameters
    defaults = {name: each.default for name, each in own.items() if name not in ("self", "kwargs")}
    shown = {row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in table_rows(page, "argument")}
    assert shown == defaults


def test_public_names_of_the_readme_can_be_imported():
    import keras_semimed.layers
    import keras_semimed.losses
    import keras_semimed.models
    import keras_semimed.networks  # noqa: F401

    table = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `keras_semimed\.(models|layers|losses|networks)` \| (.*) \|$", table, re.M)
    assert len(rows) == 4
    for module, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(getattr(keras_semimed, module), name), f"{module}.{name}"


@pytest.mark.filterwarnings(
    "ignore:Epoch 1. (mask|label)_selected"
)  # the page's threshold of 0 lets everything through
def test_the_method_of_the_page_passes_the_tests_of_the_page(tmp_path):
    names: dict[str, Any] = {"__name__": "adding_a_method"}
    for block in code_blocks(ROOT / "docs" / "adding_a_method.md"):
        exec(compile(block, "docs/adding_a_method.md", "exec"), names)
    names["test_only_confident_pixels_are_learnt_and_all_are_made_sure"]()
    names["test_it_trains_and_comes_back_from_a_file"](tmp_path)


def code_blocks(document: Path) -> list[str]:
    """The Python of a document, block by block."""
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)


def test_the_first_run_makes_a_folder_that_can_be_trained_on_and_goes_on_with_corrected_masks(tmp_path, monkeypatch):
    from keras_semimed import data
    from keras_semimed.data.check import main

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (400, 16, 16, 1), dtype="uint8")
    masks = np.zeros((400, 16, 16), "uint8")
    masks[:, 4:8, 4:8] = 1
    made = data.ImageSet([f"phantom_{index:04}" for index in range(400)], pictures, masks)
    monkeypatch.setattr(data, "load_image_set", lambda name, image_size: made)
    folder, corrected = code_blocks(ROOT / "docs" / "first_run.md")

    exec(compile(folder, "docs/first_run.md", "exec"), {})
    counts = {part: len(list(Path("my_images").glob(f"{part}/**/*.png"))) for part in ("labeled", "test", "unlabeled")}
    assert counts == {"labeled": 2 * 40, "test": 2 * 80, "unlabeled": 200}
    assert main(["my_images"]) == 0

    Path("predicted/masks").mkdir(parents=True)
    files = sorted(path.name for path in Path("my_images/unlabeled").iterdir())
    for name in files:
        Image.fromarray(masks[0]).save(Path("predicted/masks", name))
    with open("predicted/predictions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "mask_uncertainty"])
        table.writerows((name, 0.5 if index < 10 else 0.1) for index, name in enumerate(files))
    exec(compile(corrected, "docs/first_run.md", "exec"), {})
    assert all(Path("my_images/labeled", kind, name).is_file() for name in files[:10] for kind in ("images", "masks"))
    assert len(list(Path("my_images/unlabeled").iterdir())) == 190
    assert main(["my_images"]) == 0


def test_the_first_lines_of_the_readme_can_be_pasted(tmp_path, monkeypatch):
    """As they stand, but for images, steps and a network that are small."""
    monkeypatch.chdir(tmp_path)
    random, rows = np.random.default_rng(0), ["file,class"]
    for part, count in {"labeled/images": 8, "labeled/masks": 8, "unlabeled": 6}.items():
        Path("my_images", part).mkdir(parents=True)
        for index in range(count):
            pixels = np.zeros((40, 40), "uint8") if part.endswith("masks") else random.integers(0, 60, (40, 40))
            pixels[5:20, 5 + 2 * index : 20 + 2 * index] = 255
            Image.fromarray(pixels.astype("uint8")).save(Path("my_images", part, f"{part[0]}{index}.png"))
    rows += [f"l{index}.png,{'benign' if index % 2 else 'malignant'}" for index in range(8)]
    Path("my_images/labels.csv").write_text("\n".join(rows))
    lines = code_blocks(ROOT / "README.md")[0]
    for whole, small in {
        "image_size=224": "image_size=32, batch_size=2",
        "100 * len(train)": "len(train), image_size=32, encoder='resnet_tiny', weights=None",
        "epochs=100": "epochs=1",
    }.items():
        assert whole in lines
        lines = lines.replace(whole, small)
    names: dict[str, Any] = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["model"].preset == "small" and int(names["model"].step) == len(names["train"]) == 3
    assert len(names["test"].image_set) == 2


def commands(document: Path) -> list[list[str]]:
    """The lines of a document's blocks that call `semimed`, as words, without what is optional or another program's."""
    blocks = re.findall(r"^```\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("semimed ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_trainings_of_the_documents_are_well_written(document, tmp_path, monkeypatch):
    """Every flag is one, and every value fits it; data and files need not be there."""
    from keras_semimed.cli.main import COMMANDS
    from keras_semimed.experiments.command_line.command import read_settings

    monkeypatch.chdir(tmp_path)
    for name in (
        "my_images",
        "round_1",
        "other_images",
        "Dataset_BUSI_with_GT",
        "Kvasir-SEG",
        "runs/first",
        "runs/supervised",
    ):
        Path(name).mkdir(parents=True)
    Path("busi_224.npz").touch()
    Path("runs/first/config.yaml").write_text("data: my_images\nmethod: fixmatch\n")
    for words in commands(document):
        assert words[0] in COMMANDS, words
        if words[0] == "train" and "--help-all" not in words:
            settings = read_settings("train", words[1:], prog="semimed train")
            assert settings.steps > 0, words
