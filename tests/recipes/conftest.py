"""Keeps the recipes' tests short."""

from __future__ import annotations

import pytest

from keras_semimed.data import loading
from keras_semimed.experiments.runs import experiment, keeping
from tests.recipes.made import image_set


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    """Runs leave no report and no embeddings, which take seconds; those of fixtures for a whole module do."""
    monkeypatch.setattr(experiment, "report", lambda folder: None)
    monkeypatch.setattr(keeping, "collect_embeddings", lambda *_: None)


@pytest.fixture(scope="module")
def made_images():
    """Runs read small made images, whatever the data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_image_set", image_set)
        yield
