"""What a model makes of a batch before and after its method: its halves, true labels, the loss of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from keras_semimed.layers.pseudo_labels import PseudoLabels
from keras_semimed.losses.reductions import one_hot_and_valid
from keras_semimed.models.checks import check_sizes, check_target_size
from keras_semimed.models.view import LazyView, Source, View

PICTURES = ("labeled", "unlabeled", "unlabeled_strong")
"""Inputs of a batch that are images."""


def sources(
    inputs: Mapping[str, Any], targets: Mapping[str, Any], truth: bool, heads: Sequence[str]
) -> tuple[Source, Source]:
    """Both halves of a batch as they came.

    Args:
        inputs: of the batch.
        targets: of the batch.
        truth: whether the unlabelled half carries its own targets.
        heads: whose targets it must carry then.

    Raises:
        ValueError: if the truth is asked for and not there.
    """
    check_sizes(inputs, targets)
    images = {name: _known_channels(inputs[name]) for name in PICTURES if inputs.get(name) is not None}
    labeled = Source(images["labeled"], targets.get("mask"), targets.get("label"), inputs.get("labeled_area"))
    hidden: dict[str, Any] = {"mask": None, "label": None}
    if truth:
        missing = [head for head in heads if f"unlabeled_{head}" not in targets]
        if missing:
            raise ValueError(
                f"pseudo_labels='truth' needs the targets {[f'unlabeled_{head}' for head in missing]}, the batch has "
                f"{sorted(targets)}; make it with SemiSupervisedBatches(..., unlabeled_targets=True) of images whose "
                "truth is known."
            )
        hidden = {head: targets.get(f"unlabeled_{head}") for head in hidden}
    unlabeled = Source(
        images["unlabeled"],
        hidden["mask"],
        hidden["label"],
        inputs.get("unlabeled_area"),
        images.get("unlabeled_strong"),
    )
    return labeled, unlabeled


def _known_channels(images: Any) -> Any:
    """Images as they are; as colours where TensorFlow has seen grey and colour images and left their number open."""
    return images if images.shape[-1] is not None else images + ops.zeros((3,), images.dtype)


def as_view(images: Any) -> View | LazyView:
    """A view as it is; of images as they are a view that shows nothing but image."""
    view = images if isinstance(images, View | LazyView) else View(images)
    return view if view.inside is not None else view._replace(inside=ops.ones(ops.shape(view.images)[:3]))


def inside_of(head: str, view: Any) -> Any:
    """Where there is something to label: pixels `(N, S, S)` of images, or the images `(N,)` that show anything."""
    return view.inside if head == "mask" else ops.max(view.inside, axis=(1, 2))


def true_labels(head: str, view: Any, num_classes: int) -> PseudoLabels:
    """The true targets of a view as pseudo-labels; what is unknown is not kept.

    Args:
        head: `"mask"` or `"label"`.
        view: a view of images whose truth is known.
        num_classes: of the head.
    """
    labels = view.masks if head == "mask" else view.labels
    inside = inside_of(head, view)
    one_hot, known = one_hot_and_valid(labels, num_classes)
    kept = known * inside
    return PseudoLabels(ops.cast(labels, "int32"), ops.ones_like(kept), kept, inside, one_hot)


def evaluation_loss(targets: Mapping[str, Any], probabilities: Mapping[str, Any]) -> Any:
    """Sum over the heads of the mean cross-entropy of probabilities."""
    total = ops.zeros(())
    for name in probabilities:
        if name not in targets:
            continue
        check_target_size(name, targets[name], probabilities[name])
        truth, _ = one_hot_and_valid(targets[name], probabilities[name].shape[-1])
        log_probability = ops.log(ops.clip(ops.cast(probabilities[name], "float32"), 1e-7, 1.0))
        total = total - ops.sum(truth * log_probability) / ops.maximum(ops.sum(truth), 1.0)
    return total
