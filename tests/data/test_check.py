"""The command that checks a folder."""

import re

import numpy as np
import pytest
from PIL import Image

from keras_semimed.data.check import main


@pytest.fixture
def folder(tmp_path):
    for part, value in (("labeled/images", 9), ("labeled/masks", 255), ("unlabeled", 3), ("test/images", 1)):
        (tmp_path / part).mkdir(parents=True)
        for index in range(3):
            pixels = np.zeros((10, 20 + index), "uint8")
            pixels[2:5] = value
            Image.fromarray(pixels).save(tmp_path / part / f"{index}.png")
    rows = [f"labeled/images/{i}.png,{'ab'[i % 2]},p{i // 2}\ntest/images/{i}.png,b,q\n" for i in range(3)]
    (tmp_path / "labels.csv").write_text("file,class,group\n" + "".join(rows))
    return tmp_path


def test_a_good_folder_is_described(folder, capsys):
    (folder / "unlabeled/notes.txt").write_text("mine")
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in printed.splitlines()[2:5]}
    assert rows["labeled"] == ["labeled", "3", "3", "3", "2", "20x10", "/", "21x10", "/", "22x10"]
    assert rows["unlabeled"][1:5] == ["3", "3", "0", "-"] and rows["test"][1:5] == ["3", "3", "0", "1"]
    assert "mask values: 0 in 3, 255 in 3 masks" in printed
    assert "image classes, labeled: a 2, b 1" in printed and "image classes, test: b 3" in printed
    assert "not read, no images by their names: 1 .txt" in printed and "notes.txt" in printed
    assert "problems: none" in printed and "training can start" in printed


def test_every_problem_is_listed_at_once(folder, capsys):
    (folder / "labeled/images/0.png").write_bytes(b"no image")
    Image.fromarray(np.full((10, 21), 7, "uint8")).save(folder / "labeled/masks/1.png")
    Image.fromarray(np.zeros((10, 9), "uint8")).save(folder / "labeled/masks/2.png")
    (folder / "unlabeled/1.png").write_bytes((folder / "unlabeled/1.png").read_bytes()[:50])
    (folder / "unlabeled/sub").mkdir()
    assert main([str(folder), "--class-names", "a"]) == 1
    problems = capsys.readouterr().out.partition("problems: ")[2]
    assert problems.startswith("11\n")  # with why neither masks nor classes could be learnt
    for text in (
        "labeled/images/0.png: cannot be decoded",
        "labeled/masks/1.png: holds [7]",
        "labeled/masks/2.png: the mask is (10, 9)",
        "unlabeled/1.png: cannot be decoded",
        "unlabeled/sub: is a folder",
        "labeled/images/1.png: its class in labels.csv is 'b'; expected one of ('a',)",
    ):
        assert text in problems
    assert "cannot start" in problems


def test_values_may_be_declared(folder, capsys):
    Image.fromarray(np.full((10, 21), 7, "uint8")).save(folder / "labeled/masks/1.png")
    deep = np.full((10, 20), 4000, "uint16")
    Image.fromarray(deep).save(folder / "unlabeled/0.png")
    assert main([str(folder)]) == 1
    declared = ["--mask-value", "0..127=0", "--mask-value", "255=1", "--intensity-range", "0", "4095"]
    assert main([str(folder), *declared]) == 0
    assert "read as 0..127 -> 0, 255 -> 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["nowhere"], [".", "--mask-value", "x"], [".", "--mask-value", "1=9", "--num-classes", "2"]]
)
def test_wrong_usage_is_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_name_that_is_no_text_is_escaped(folder, capsys):
    try:
        (folder / "unlabeled").joinpath(b"\xff.png".decode("utf-8", "surrogateescape")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert main([str(folder)]) == 1
    assert "unlabeled/\\udcff.png: its name is not valid UTF-8" in capsys.readouterr().out


def test_what_lies_beside_the_parts_is_named(folder, capsys):
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden").write_text("")
    assert main([str(folder)]) == 0
    assert re.search(r"not read in \S+: notes.txt, val/$", capsys.readouterr().out, re.M)


def test_problems_name_the_flags_that_mend_them(folder, capsys):
    soft = np.array([[0, 12, 90], [140, 250, 255]] * 5, "uint8").repeat(7, 1)
    Image.fromarray(soft[:, :20]).save(folder / "labeled/masks/0.png")
    assert main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert (
        "with --mask-value; 0..127=0 128..255=1 takes soft edges to the nearer side" in said
        and "mask_values" not in said
    )
    assert main([str(folder), "--mask-value", "0..127=0", "128..255=1"]) == 0
