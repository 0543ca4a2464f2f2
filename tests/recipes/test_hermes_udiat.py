from __future__ import annotations

import pytest

from keras_semimed.data import loading
from recipes import experiment
from recipes.experiment import count_leaks
from recipes.hermes_udiat import main
from tests.recipes.made import image_set


@pytest.fixture
def run(monkeypatch):
    """Runs the recipe up to its experiment, which is returned."""
    monkeypatch.setattr(loading, "load_image_set", image_set)
    experiments = []
    monkeypatch.setattr(experiment, "run", experiments.append)

    def prepared(*flags):
        assert main([*flags, "--image-size", "32"]) == 0
        return experiments.pop()

    return prepared


def test_it_is_about_udiat_with_twenty_labelled_images(run):
    found = run()
    assert found.name == "hermes_udiat" and found.settings.data == "udiat"
    assert len(found.load().split.labeled) == 20
    assert run("--demo").settings.data == "phantom"


def test_leaks_are_counted_between_training_and_what_is_scored(run):
    data = run("--labeled", "8").load()
    patient = {name: group for name, group in zip(image_set("", 32).names, image_set("", 32).groups, strict=True)}
    trained = [patient[name] for name in (*data.labeled.names, *data.unlabeled.names)]
    twins = [name for name in data.held_out.names if patient[name] in trained]
    pairs = sum(trained.count(patient[name]) for name in data.held_out.names)
    assert twins and count_leaks(data) == f"{pairs} pairs, {len(twins)} of 12 scored images"


@pytest.mark.parametrize("flags", [(), ("--validate",)])
def test_a_leak_safe_split_has_no_leak_into_what_is_scored(run, flags):
    data = run("--labeled", "8", "--split", "leak_safe", *flags).load()
    assert count_leaks(data) == f"0 pairs, 0 of {len(data.held_out)} scored images"
