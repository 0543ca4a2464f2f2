"""The command `semimed`: what its words reach, how fast it answers, and that a wrong word is a sentence."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import keras_semimed
from keras_semimed.cli.main import COMMANDS, main

pytestmark = pytest.mark.backend_free

ALONE = """
import sys
for name in ("keras", "tensorflow", "torch", "jax", "matplotlib"):
    sys.modules[name] = None
from keras_semimed.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
WRONG = {
    "trian": "'trian' is none of train, check, predict, report, compare, sweep, export, data; did you mean train?",
    "train busi": "--method is missing",
    "train busi --method hermse": "'hermse' is none of",
    "train nowhere --method cps": "data: 'nowhere' is none of",
    "train busi --method cps --setps 3": "--setps",
    "train busi --method cps --steps 0": "--steps must be at least 1, found 0",
    "train busi --method cps --steps many": "--steps",
    "train busi --method cps --image-size 8": "--image-size must be at least 32, found 8",
    "train busi --method cps --manual-dir nowhere": "--manual-dir nowhere does not exist",
    "check": "the following arguments are required: path",
    "check nowhere": "nowhere",
    "predict": "the following arguments are required: MODEL, PATH, --output",
    "predict nowhere.keras image.png --output out --batch-size 0": "--batch-size must be at least 1, found 0",
    "report": "the following arguments are required: RUN",
    "compare": "the following arguments are required: RUN",
    "compare a --published nature": "invalid choice: 'nature'",
    "sweep nothing": "'nothing' is no table",
    "export nowhere model.onnx": "nowhere is not there",
    "export a b --format doc": "invalid choice: 'doc'",
    "data": "the following arguments are required: action",
    "data describe": "NAME is missing",
    "data describe buis": "invalid choice: 'buis'",
    "data pack busi": "the following arguments are required: --output",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_word_is_one_sentence_before_a_backend_is_imported(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2, done.stderr
    assert WRONG[words] in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_a_folder_without_a_test_part_is_a_sentence_before_a_backend_is_imported(tmp_path):
    for part in ("labeled/masks", "unlabeled"):
        (tmp_path / "mine" / part).mkdir(parents=True)
    for words, said in {"": "has no folder test/", "--test 0.3 --mask-value x": "'x' is no mask value"}.items():
        done = subprocess.run(
            [sys.executable, "-c", ALONE, "train", "mine", "--method", "fixmatch", *words.split()],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_is_there_without_a_backend(name):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, name, "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0 and f"semimed {name}" in done.stdout, done.stderr


def test_help_version_and_nothing(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}" in printed and command.text in printed for name, command in COMMANDS.items())
    assert main(["--version"]) == 0 and keras_semimed.__version__ in capsys.readouterr().out
    assert main([]) == 2


def test_every_command_says_how_it_was_called(capsys):
    """A recipe's help names the recipe, not the command that it is the same as."""
    for name in ("compare", "report", "sweep", "pack"):
        with pytest.raises(SystemExit):
            importlib.import_module(f"recipes.{name}").main(["--help"])
        printed = capsys.readouterr().out
        assert f"usage: python -m recipes.{name} " in printed and "usage: semimed" not in printed


def test_data_are_listed_and_described(capsys):
    assert main(["data", "list"]) == 0
    assert "busi " in capsys.readouterr().out
    assert main(["data", "describe", "busi"]) == 0
    assert "780 images" in capsys.readouterr().out


def test_a_folder_is_checked(tmp_path, capsys):
    for place in ("labeled/images", "labeled/masks", "unlabeled"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(np.eye(40, dtype="uint8") * 255).save(tmp_path / place / "a.png")
    Image.fromarray(np.eye(40, dtype="uint8")[::-1] * 200).save(tmp_path / "unlabeled/a.png")
    assert main(["check", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "training can start; give a folder test/ of images to score: too few images or patients" in printed
    for place in ("labeled/images", "labeled/masks"):
        Image.fromarray(np.eye(40, k=3, dtype="uint8") * 255).save(tmp_path / place / "b.png")
    assert main(["check", str(tmp_path)]) == 0
    assert "training can start; give --test 0.3, which cuts a test part off" in capsys.readouterr().out
