"""Benchmarks are not run here; what they take from the package has to be there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks

NAMES = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ and (
        callable(getattr(module, "main", None)) or f"python -m benchmarks.{name}" not in module.__doc__
    )
