"""What the tests of the models share."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def same_start_weights() -> None:
    """Networks are made with the same weights in every run of a test, on one backend."""
    keras.utils.set_random_seed(0)
