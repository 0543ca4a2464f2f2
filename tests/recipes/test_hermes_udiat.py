from __future__ import annotations

import json

import pytest

from keras_semimed.data import leak_report, loading
from keras_semimed.data.splits import Split
from recipes.experiment import count_leaks, load_one
from recipes.hermes_arguments import HermesSettings
from recipes.hermes_udiat import main
from tests.recipes.made import image_set


@pytest.fixture(autouse=True)
def made_images(monkeypatch):
    monkeypatch.setattr(loading, "load_image_set", image_set)


def test_a_run_is_of_udiat_with_twenty_labels_and_prints_what_its_split_leaks(tmp_path, capsys):
    flags = "--image-size 32 --batch-size 2 --steps 1 --epoch-steps 1 --encoder resnet_tiny --weights none "
    flags += "--decoder-filters 8,8,8,8,8 --exchange none --method supervised"
    assert main([*flags.split(), "--output", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == "hermes_udiat" and config["configuration"]["data"] == "udiat"
    assert config["split"]["sizes"]["labeled"] == 20
    images = image_set("udiat", 32)
    split = Split.load(tmp_path / "run" / "split.txt")
    report = leak_report(split, images)
    pairs = sum(leak.other_part == "test" for leak in report.leaks)
    assert (
        pairs > 0 and f"leaks       {pairs} pairs, {len(report.twins())} of 12 scored images" in capsys.readouterr().out
    )


def test_a_leak_safe_split_has_no_leak_into_what_is_scored():
    for validate in (False, True):
        settings = HermesSettings(labeled=8, image_size=32, split="leak_safe", validate=validate)
        data = load_one(settings, "udiat")
        assert count_leaks(data) == f"0 pairs, 0 of {len(data.held_out)} scored images"


def test_udiat_is_asked_for_by_name_where_it_is_missing(capsys, monkeypatch):
    monkeypatch.undo()
    assert main(["--manual-dir", "no/such/folder"]) == 2
    assert "--manual-dir no/such/folder does not exist" in capsys.readouterr().err
