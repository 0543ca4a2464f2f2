"""Splits given as files, masks by the class of the image, and images of another hospital."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data import read_image_folder
from keras_semimed.experiments.comparison.compare import compare_folders
from keras_semimed.experiments.inputs.external import _columns, _groups
from keras_semimed.files import read_table
from recipes.train import main
from tests.recipes.made import image_set

SMALL = (
    "phantom_ultrasound --image-size 32 --batch-size 2 --steps 2 --epoch-steps 1 --encoder resnet_tiny --weights none "
    "--decoder-filters 8,8,8,8,8 --pseudo-labels 0"
)
SPLIT = {"labeled": range(8), "unlabeled": range(8, 26), "validation": range(26, 30), "test": range(30, 38)}


pytestmark = pytest.mark.usefixtures("made_images")


def split_file(path: Path, **changes) -> Path:
    parts = {**SPLIT, **changes}
    lines = [f"{part}\timage {index}\n" for part, indices in parts.items() for index in indices]
    path.write_text("# keras_semimed split\n" + "".join(lines))
    return path


def run(words: str, folder: Path) -> int:
    return main([*SMALL.split(), *words.split(), "--output", str(folder)])


def test_a_split_file_is_the_split_and_its_hash_is_kept(tmp_path, capsys):
    path = split_file(tmp_path / "mine.txt")
    assert run(f"--method supervised --split-file {path}", tmp_path / "run") == 0
    assert "2 of 40 images are in no part" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["split"]["sizes"] == {name: len(indices) for name, indices in SPLIT.items()}
    assert config["configuration"]["split_hash"] == config["split"]["hash"]
    assert [row["name"] for row in read_table(tmp_path / "run" / "images.csv")] == [f"image {i}" for i in SPLIT["test"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": [30, 77, 78]}, "names 2 images that the data do not have, such as 'image 77'"),
        ({"unlabeled": [7, 8]}, "mine.txt: 'image 7' appears twice in the split (labeled, unlabeled)"),
        ({"test": []}, "has no image in the part test"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused_before_training(change, message, tmp_path, capsys):
    path = split_file(tmp_path / "mine.txt", **change)
    assert run(f"--method supervised --split-file {path}", tmp_path / "run") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_split_file_needs_the_part_that_is_scored(tmp_path, capsys):
    path = split_file(tmp_path / "mine.txt", validation=())
    assert run(f"--method supervised --validate --split-file {path}", tmp_path / "run") == 2
    assert "has no image in the part validation" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine.txt is no list of a split: it begins with ''"),
        (b"\x89PNG\r\n", "mine.txt is no text in UTF-8"),
        ("# keras_semimed split\ntest\tbösartig\n".encode("latin-1"), "mine.txt is no text in UTF-8"),
        (b"file,class\n1,2\n", "mine.txt is no list of a split: it begins with 'file,class'"),
        (None, "mine.txt cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_no_split_is_refused_by_name(content, message, tmp_path, capsys):
    path = tmp_path / "mine.txt"
    path.mkdir() if content is None else path.write_bytes(content)
    assert run(f"--method supervised --split-file {path}", tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_a_split_file_beside_flags_of_a_split_is_refused(tmp_path, capsys):
    path = split_file(tmp_path / "mine.txt")
    assert run(f"--method supervised --labeled 8 --split-file {path}", tmp_path / "run") == 2
    assert "leave out --labeled" in capsys.readouterr().err
    assert run("--method supervised --split-file nowhere.txt", tmp_path / "run") == 2
    assert "--split-file nowhere.txt does not exist" in capsys.readouterr().err


def test_a_run_without_an_unlabelled_image_is_refused(tmp_path, capsys):
    assert run("--method supervised --labeled 24 --validate", tmp_path / "run") == 2
    assert "--labeled 24 of phantom_ultrasound leaves no unlabelled image" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_masks_by_type_have_a_class_more(tmp_path):
    assert run("--method supervised --labeled 8 --mask-classes type", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["num_classes"] == 3
    assert {"union_0", "union_1", "union_2"} <= read_table(tmp_path / "run" / "images.csv")[0].keys()
    assert run("--method loco --network unet --labeled 8 --mask-classes type", tmp_path / "other") == 0


def test_another_hospital_is_scored_as_well_and_by_class(tmp_path, capsys):
    words = "--method mean_teacher --labeled 8 --test-on bus_bra --recompute-statistics"
    assert run(words, tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    sets = [f"{weights}{new}" for weights in ("last", "teacher") for new in ("", ", new statistics")]
    expected = {name for each in sets for name in (each, f"{each} on bus_bra")}
    expected |= {f"{each} on bus_bra, {label}" for each in sets for label in ("benign", "malignant")}
    assert set(config["result"]) == expected
    assert list(config["result"])[:4] == ["last", "teacher", "last, new statistics", "teacher, new statistics"]
    shown = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("| last")]
    assert [count.strip() for name, count in shown] == ["12", "12", "40", "20", "20", "40", "20", "20"]
    rows = read_table(tmp_path / "run" / "images.csv")
    assert rows[-1]["weights"] == "teacher" and sum(row["weights"] == "last on bus_bra" for row in rows) == 40
    both = [config["result"][f"last on bus_bra{group}"]["dice"] for group in ("", ", benign", ", malignant")]
    np.testing.assert_allclose(both[0], np.mean(both[1:]), rtol=1e-6)
    # A patient has two images, one of each class.
    result = config["result"]
    assert result["last on bus_bra"]["groups"] == 20 and "groups" not in result["last on bus_bra, benign"]
    other = [row for row in rows if row["weights"] == "last on bus_bra"]
    assert [(row["group"], row["group_class"]) for row in other[:3]] == [
        ("patient 0", "benign"),
        ("patient 0", "malignant"),
        ("patient 1", "benign"),
    ]
    assert {row["group_class"] for row in rows if row["weights"] == "last"} == {""}
    capsys.readouterr()
    table = compare_folders({name: [tmp_path / "run"] for name in ("a", "b")})
    assert "| b     | teacher on bus_bra                 | malignant | 20     | +0.0" in capsys.readouterr().out
    assert {row["weights"]: list(row.get("parts", ())) for row in table if row["group"] == "b"} == {
        name: ["benign", "malignant"] if "bus_bra" in name else [] for name in {row["weights"] for row in table}
    }


def hospital(folder: Path, masks: bool = True) -> Path:
    random = np.random.default_rng(0)
    for part in ("images", *(["masks"] if masks else [])):
        (folder / "labeled" / part).mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 255, (32, 32, 3)) if part == "images" else np.zeros((32, 32))
            pixels[8:20, 8:20] = 255 if part == "masks" else 200
            Image.fromarray(pixels.astype("uint8")).save(folder / "labeled" / part / f"{index}.png")
    rows = [f"{index}.png,{('benign', 'malignant')[index % 2]},{'AB'[index // 2]}" for index in range(4)]
    (folder / "labels.csv").write_text("file,class,scanner\n" + "\n".join(rows) + "\n")
    return folder


def test_a_folder_is_scored_by_what_its_table_says(tmp_path):
    place = hospital(tmp_path / "elsewhere")
    assert run(f"--method supervised --labeled 8 --test-on {place}", tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "config.json").read_text())["result"]
    groups = ("benign", "malignant", "scanner A", "scanner B")
    assert set(result) == {"last", "last on elsewhere", *(f"last on elsewhere, {group}" for group in groups)}
    assert result["last on elsewhere, scanner A"]["images"] == 2


def test_columns_with_one_or_many_values_and_those_of_patients_are_nothing_to_be_scored_by():
    images = image_set("phantom_ultrasound", 32).select([f"image {index}" for index in range(12)])
    values = {
        "one": lambda i: "x",
        "ten": lambda i: str(i % 10),
        "eleven": lambda i: str(i % 11),
        "few": "ABC".__getitem__,
    }
    columns = {name: {} for name in images.names}
    for index, name in enumerate(images.names):
        for column, value in values.items():
            if column != "few" or index < 3:
                columns[name][column] = value(index)
    found = _groups(images, columns)
    assert list(found) == ["class", "ten", "few"]
    assert found["few"] == {"image 0": "A", "image 1": "B", "image 2": "C"}
    assert found["class"]["image 1"] == "malignant" and found["ten"]["image 11"] == "1"


def test_columns_of_patients_and_of_what_is_read_are_no_groups(tmp_path):
    header = "file,class,Patient ID,case,spacing_mm,scanner,site"
    (tmp_path / "labels.csv").write_text(f"{header}\na.png,x,p1,c1,0.1,A,\nb.png,y,p2,c2,0.2,B,U\n")
    assert _columns(tmp_path / "labels.csv") == {"a": {"scanner": "A"}, "b": {"scanner": "B", "site": "U"}}


def test_names_with_dots_are_kept_apart(tmp_path):
    """As the identifiers that DICOM files without a suffix are called by."""
    lines = ["file,class,scanner", "1.2.3.1,x,A", "1.2.3.2,x,B", "case.1.png,x,A", "case.png,y,B"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    columns = _columns(tmp_path / "labels.csv")
    assert list(columns) == ["1.2.3.1", "1.2.3.2", "case.1", "case"]
    images = image_set("phantom_ultrasound", 32).select([f"image {index}" for index in range(4)])
    images = dataclasses.replace(images, names=list(columns))
    assert _groups(images, columns)["scanner"] == {"1.2.3.1": "A", "1.2.3.2": "B", "case.1": "A", "case": "B"}


def test_a_part_of_a_folder_is_read_beside_rows_of_the_others(tmp_path):
    place = hospital(tmp_path / "elsewhere")
    table = (place / "labels.csv").read_text()
    (place / "unlabeled").mkdir()
    Image.new("RGB", (32, 32)).save(place / "unlabeled" / "other.png")
    (place / "labels.csv").write_text(table + "other.png,benign,A\n")
    assert list(read_image_folder(place, 32).labels) == [0, 1, 0, 1]
    (place / "labels.csv").write_text(table + "nowhere.png,benign,A\n")
    with pytest.raises(ValueError, match="a row for 'nowhere.png', which is not an image"):
        read_image_folder(place, 32)


def test_images_that_the_run_learns_from_are_not_of_another_hospital(tmp_path, capsys):
    assert run("--method supervised --labeled 8 --test-on phantom_ultrasound", tmp_path / "run") == 2
    assert "is the data that the run learns from" in capsys.readouterr().err
    place = hospital(tmp_path / "elsewhere")
    images = image_set("phantom_ultrasound", 32).images
    Image.fromarray(images[3]).save(place / "labeled" / "images" / "1.png")
    assert run(f"--method supervised --labeled 8 --test-on {place}", tmp_path / "run") == 2
    assert "holds 1 images of the data that the run learns from, such as '1'" in capsys.readouterr().err


def test_another_hospital_without_masks_or_without_a_place_is_refused_before_training(tmp_path, capsys):
    place = hospital(tmp_path / "elsewhere", masks=False)
    assert run(f"--method supervised --labeled 8 --test-on {place}", tmp_path / "run") == 2
    assert "has no masks to score by" in capsys.readouterr().err
    assert run("--method supervised --labeled 8 --test-on bus_bar", tmp_path / "run") == 2
    assert "did you mean bus_bra?" in capsys.readouterr().err
    assert run("--method supervised --labeled 8 --test-on-dir .", tmp_path / "run") == 2
    assert "--test-on, which is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
