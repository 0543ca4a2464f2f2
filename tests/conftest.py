"""Shared fixtures: real data and pretrained weights, where the machine has them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if os.environ.get("KERAS_SEMIMED_BLOCK_TENSORFLOW") == "1":
    # As if it were not installed; an import hook that raises would break PyTorch, which probes for it.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]

# Most of the time of the tests on JAX is compiling; these make it two thirds. Level 0 miscompiles reductions.
XLA_FLAGS = (
    "--xla_backend_optimization_level=1",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))

TESTS = Path(__file__).resolve().parent
# What never runs on a backend, or rests on Python alone: files and splits, scores and pages made from arrays, command
# lines, the source itself, which view goes where in a method, and how a baseline puts pieces together that are tested
# on every backend, as its training is (models/test_contract.py).
BACKEND_FREE = (
    *(
        "data",
        "datasets",
        "evaluation",
        "test_benchmarks.py",
        "test_files.py",
        "test_parameters.py",
        "test_site.py",
        "test_structure.py",
    ),
    *(
        f"recipes/test_{name}.py"
        for name in ("command", "commits", "compare", "console", "folders", "leakage", "protocol", "sweep", "words")
    ),
    *(f"models/test_{name}.py" for name in ("hidden_truth", "presets", "views_seen")),
    *(f"models/test_{name}.py" for name in ("abd", "ad_mt", "augseg", "corrmatch", "cps", "dcnet", "diffrect")),
    *(f"models/test_{name}.py" for name in ("fixmatch", "infomatch", "interlude", "mean_teacher", "pefat")),
    *(f"models/test_{name}.py" for name in ("shrinkmatch", "ss_net", "u2pl", "unimatch")),
    "prediction/test_reading.py",
    # Trainings of which the files are what is tested; those of test_train.py and test_sigterm.py run on every backend.
    *(f"recipes/test_{name}.py" for name in ("hermes_busi", "hermes_udiat", "loco", "protocol_data")),
    *(f"recipes/test_{name}.py" for name in ("own_folder", "quickstart")),
    "experiments",
    *(f"recipes/test_{name}.py" for name in ("runs_that_last", "stages")),
)
FITTING = (
    *(f"data/test_{name}.py" for name in ("arrays", "pipeline")),
    *(f"evaluation/test_{name}.py" for name in ("cases", "contrast", "embeddings")),
)

SHARED = TESTS.parents[1] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that give the same on every backend: `-m "not backend_free"` leaves them out."""
    free, fitting = ({TESTS / name for name in names} for names in (BACKEND_FREE, FITTING))
    for item in items:
        if free & {item.path, *item.path.parents} and item.path not in fitting:
            item.add_marker(pytest.mark.backend_free)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"needs {path}, which is not on this machine")
    return path


@pytest.fixture
def shared_data() -> Path:
    """Folder with the real images described in the data README beside the checkout."""
    return _shared("data")


@pytest.fixture
def shared_weights() -> Path:
    """Folder with ImageNet weights under torchvision's parameter names."""
    return _shared("weights")
