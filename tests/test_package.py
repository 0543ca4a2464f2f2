"""What importing the package needs, and the version that it reports."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import keras_semimed

# Third-party packages that some part of the package uses beyond Keras and NumPy.
OPTIONAL = [
    "PIL",
    "jinja2",
    "keras_cv",
    "keras_hub",
    "matplotlib",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "tqdm",
]
PACKAGES = ["callbacks", "data", "evaluation", "layers", "losses", "metrics", "models", "networks"]


def test_import_needs_only_keras_and_numpy():
    # Keras first: what its backend loads (TensorFlow itself, SciPy under JAX) is not our doing.
    script = (
        "import importlib, sys, keras, numpy\n"
        f"for name in {OPTIONAL}: sys.modules.setdefault(name, None)\n"
        f"for name in {PACKAGES}: importlib.import_module('keras_semimed.' + name)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("keras-semimed")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("keras-semimed runs from the checkout without being installed")
    assert keras_semimed.__version__ == installed
