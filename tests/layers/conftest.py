"""Fixtures of the layer tests."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def fixed_weights():
    """Starts every test with the same initial weights."""
    keras.utils.set_random_seed(0)
