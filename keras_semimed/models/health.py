"""What share of the pseudo-labels a method uses, as figures that a run tracks."""

from __future__ import annotations

from typing import Any, NamedTuple

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
