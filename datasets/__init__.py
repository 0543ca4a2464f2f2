"""TensorFlow Datasets builders; `import keras_semimed.data.builders` registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

# In a checkout this folder is there a second time, as `datasets`; a builder is registered under one name alone.
if __name__ == "keras_semimed.data.builders":
    try:
        importlib.import_module("tensorflow")
        importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            f"keras_semimed.data.builders needs TensorFlow and TensorFlow Datasets ({error}): pip install tensorflow "
            "tensorflow-datasets. Without them keras_semimed.data.load reads the same data sets."
        ) from error
    for _found in pkgutil.iter_modules(__path__):
        if _found.ispkg:
            importlib.import_module(f"{__name__}.{_found.name}.{_found.name}_dataset_builder")
