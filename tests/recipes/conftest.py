"""Keeps the recipes' tests short."""

from __future__ import annotations

import pytest

from recipes import experiment


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    """Runs leave no report and no embeddings, which take seconds; those of fixtures for a whole module do."""
    monkeypatch.setattr(experiment, "report", lambda folder: None)
    monkeypatch.setattr(experiment, "collect_embeddings", lambda *_: None)
