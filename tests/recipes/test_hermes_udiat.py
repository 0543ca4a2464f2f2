from __future__ import annotations

import pytest

from keras_semimed.data import loading
from keras_semimed.experiments.inputs.data_sets import count_leaks, read
from keras_semimed.experiments.runs import experiment
from recipes.hermes_udiat import main
from tests.recipes.made import image_set


@pytest.fixture
def run(monkeypatch):
    """Runs the recipe up to its settings, which are returned."""
    monkeypatch.setattr(loading, "load_image_set", image_set)
    found = []
    monkeypatch.setattr(experiment, "run", found.append)

    def prepared(*flags):
        assert main([*flags, "--image-size", "32"]) == 0
        return found.pop()

    return prepared


def test_it_is_about_udiat_with_twenty_labelled_images(run):
    settings = run()
    assert settings.recipe == "hermes_udiat" and settings.data == "udiat"
    assert len(read(settings).split.labeled) == 20
    assert run("--demo").data == "phantom"


def test_leaks_are_counted_between_training_and_what_is_scored(run):
    data = read(run("--labeled", "8"))
    patient = {name: group for name, group in zip(image_set("", 32).names, image_set("", 32).groups, strict=True)}
    trained = [patient[name] for name in (*data.labeled.names, *data.unlabeled.names)]
    twins = [name for name in data.held_out.names if patient[name] in trained]
    pairs = sum(trained.count(patient[name]) for name in data.held_out.names)
    assert twins and count_leaks(data) == f"{pairs} pairs, {len(twins)} of 12 scored images"


@pytest.mark.parametrize("flags", [(), ("--validate",)])
def test_a_leak_safe_split_has_no_leak_into_what_is_scored(run, flags):
    data = read(run("--labeled", "8", "--split", "leak_safe", *flags))
    assert count_leaks(data) == f"0 pairs, 0 of {len(data.held_out)} scored images"
