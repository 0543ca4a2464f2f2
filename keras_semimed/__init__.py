"""Semi-supervised segmentation and classification of medical images with Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy as _lazy

if TYPE_CHECKING:
    from keras_semimed import (
        callbacks,
        data,
        evaluation,
        experiments,
        export,
        layers,
        losses,
        metrics,
        models,
        networks,
        optimizers,
        prediction,
        saved,
        thresholds,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "callbacks",
    "data",
    "evaluation",
    "experiments",
    "export",
    "layers",
    "losses",
    "metrics",
    "models",
    "networks",
    "optimizers",
    "prediction",
    "saved",
    "thresholds",
]

if not TYPE_CHECKING:  # who checks types sees the parts above, and what is none of them is an error
    __getattr__ = _lazy(__name__, {name: "" for name in __all__ if name != "__version__"})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
