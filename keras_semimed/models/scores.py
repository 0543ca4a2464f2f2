"""The metrics that `compile` is given, of the labelled part of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_semimed.layers.views import IGNORE
from keras_semimed.metrics.balanced_accuracy import BalancedAccuracy
from keras_semimed.metrics.overlap import ForegroundOverlap

SPARSE = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "acc": keras.metrics.SparseCategoricalAccuracy,
    "crossentropy": keras.metrics.SparseCategoricalCrossentropy,
    "ce": keras.metrics.SparseCategoricalCrossentropy,
}


class Scores:
    """Keras metrics by head, fed with class indices and probabilities; what has no known class does not count.

    Args:
        metrics: as Keras' `compile` takes them: `{"mask": [...], "label": [...]}`, or a list for a model that learns
            one of them.
        classes: number of classes by head that is learnt.

    Raises:
        ValueError: for another structure, or a metric that does not take class indices and probabilities.
    """

    def __init__(self, metrics: Any, classes: Mapping[str, int]) -> None:
        self.metrics: dict[str, tuple[str, keras.metrics.Metric]] = {}
        for head, given in _by_head(metrics, list(classes)).items():
            for each in keras.tree.flatten(given):
                metric = _metric(each)
                _try_out(metric, head, classes[head])
                name = f"{head}_{metric.name}"
                same = sum(found == name or found.startswith(f"{name}_") for found in self.metrics)
                self.metrics[f"{name}_{same}" if same else name] = (head, metric)

    def update(self, head: str, labels: Any, probabilities: Any) -> None:
        """Takes in a batch.

        Args:
            head: `"mask"` or `"label"`.
            labels: `(N, H, W)` or `(N,)` class indices, 255 where unknown.
            probabilities: `(N, H, W, K)` or `(N, C)`.
        """
        for its, metric in self.metrics.values():
            if its == head:
                update_known(metric, labels, probabilities)

    def results(self, heads: Sequence[str]) -> dict[str, Any]:
        """The results of some heads, by name."""
        return {name: metric.result() for name, (head, metric) in self.metrics.items() if head in heads}


def _by_head(metrics: Any, heads: Sequence[str]) -> Mapping[str, Any]:
    if not metrics:
        return {}
    if isinstance(metrics, Mapping):
        if set(metrics) <= set(heads):
            return metrics
        found = sorted(metrics)
    elif len(heads) == 1:
        return {heads[0]: metrics}
    else:
        found = [type(metrics).__name__]
    raise ValueError(
        f"`metrics` must be a dict of lists with the keys {' and '.join(map(repr, heads))}, such as "
        f"{{{heads[0]!r}: ['accuracy']}}, found {', '.join(map(repr, found))}."
    )


def _metric(given: Any) -> keras.metrics.Metric:
    if isinstance(given, str) and given in SPARSE:
        return SPARSE[given](name=given)
    metric = keras.metrics.get(given)
    if isinstance(metric, keras.metrics.Metric):
        return metric
    return keras.metrics.MeanMetricWrapper(metric, name=given if isinstance(given, str) else metric.__name__)


def update_known(metric: keras.metrics.Metric, labels: Any, probabilities: Any) -> None:
    """Takes in a batch, as `Scores.update`, but what has no known class."""
    labels = ops.cast(labels, "int32")
    if (
        isinstance(metric, BalancedAccuracy | ForegroundOverlap)
        or "sample_weight" not in inspect.signature(metric.update_state).parameters
    ):
        metric.update_state(labels, probabilities)  # it knows of 255, or has to
        return
    known = ops.not_equal(labels, IGNORE)
    weight = ops.cast(known, "int32" if "int" in str(metric.dtype) else "float32")
    metric.update_state(ops.where(known, labels, 0), probabilities, sample_weight=weight)


def _try_out(metric: keras.metrics.Metric, head: str, classes: int) -> None:
    """One small batch: it makes the variables that a compiled step could not, and shows what does not fit."""
    shape = (2, 4, 4) if head == "mask" else (2,)
    try:
        update_known(metric, ops.zeros(shape, "int32"), ops.ones((*shape, classes)) / classes)
        metric.result()
    except Exception as error:
        raise ValueError(
            f"`metrics`: {metric.name!r} does not take class indices {shape} and probabilities {(*shape, classes)}, "
            f"which {head!r} has: {error}"
        ) from error
    metric.reset_state()
