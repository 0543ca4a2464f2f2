"""What share of the pseudo-labels a method uses, as figures that a run tracks."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import keras
from keras import ops


class Share(NamedTuple):
    """A share of pixels or images.

    Over several batches it is the share of all of them, so that a batch without a member does not count as 0.

    Attributes:
        part: float32 scalar, the chosen ones (or the sum of their weights).
        whole: float32 scalar, how many there are.
    """

    part: Any
    whole: Any

    @property
    def value(self) -> Any:
        """The share in this batch; 0 where there is no member."""
        return self.part / ops.maximum(self.whole, 1.0)


def share_by_class(name: str, weight: Any, labels: Any, present: Any, num_classes: int) -> dict[str, Share]:
    """The weight kept of each class' members: `{name}_class_0`, `{name}_class_1`, ...

    Args:
        name: start of the names.
        weight: of each pixel or image; 0 where `present` is 0.
        labels: their classes, of the same shape.
        present: 1 where a pixel or image counts, of the same shape.
        num_classes: number of classes.
    """
    shares = {}
    for index in range(num_classes):
        members = present * ops.cast(labels == index, "float32")
        shares[f"{name}_class_{index}"] = Share(ops.sum(weight * members), ops.sum(members))
    return shares


class SelectionWarning(keras.callbacks.Callback):
    """Warns once in a run about a selected share under 1 % or over 99 % for a whole epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.warned = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the figures whose name ends with `_selected`."""
        if not self.model.selects:
            return
        for name, value in (logs or {}).items():
            if self.warned or not name.endswith("_selected") or not math.isfinite(value) or 0.01 <= value <= 0.99:
                continue
            self.warned = True
            warnings.warn(
                f"Epoch {epoch + 1}: {name} = {value:.1%} of the pseudo-labels. Nearly "
                f"{'none' if value < 0.01 else 'all'} of them pass the thresholds, so the selection decides nothing; "
                "look at the thresholds, or train longer on the labelled images first.",
                stacklevel=2,
            )
