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


PARTS = [*PACKAGES, "experiments", "export", "optimizers", "prediction", "saved", "thresholds"]


def test_parts_come_when_they_are_asked_for():
    heavy = ["jax", "keras", "numpy", "tensorflow", "torch"]
    script = (
        "import sys, keras_semimed\n"
        f"assert not set({heavy}) & set(sys.modules)\n"
        "before = [name for name in sys.modules if name.startswith('keras_semimed.')]\n"
        "assert before == ['keras_semimed.lazy'], before\n"
        f"assert set({PARTS}) <= set(dir(keras_semimed)) & set(keras_semimed.__all__)\n"
        "assert keras_semimed.thresholds.__name__ == 'keras_semimed.thresholds'\n"
        f"for name in {PARTS}: assert getattr(keras_semimed, name) is sys.modules['keras_semimed.' + name], name\n"
        "from keras_semimed import *\n"
        "assert models.Hermes is keras_semimed.models.METHODS['hermes']\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_part_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'keras_semimed' has no attribute 'model'"):
        keras_semimed.model  # noqa: B018
    assert set(keras_semimed.__all__) == {"__version__", *PARTS}


def test_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("keras-semimed")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("keras-semimed runs from the checkout without being installed")
    assert keras_semimed.__version__ == installed
