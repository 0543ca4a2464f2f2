"""Shared fixtures: real data and pretrained weights, where the machine has them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if os.environ.get("KERAS_SEMIMED_BLOCK_TENSORFLOW") == "1":
    # As if it were not installed; an import hook that raises would break PyTorch, which probes for it.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]

# Most of the time of the tests on JAX is compiling; level 0 miscompiles reductions, so 1 is as low as it goes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
