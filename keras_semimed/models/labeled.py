"""What every method does with the labelled part of a batch: Hermes Eq. 1 and 2, and its metrics."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_semimed.losses import masked_cross_entropy
from keras_semimed.models.semi_supervised import SemiSupervisedModel


def view_masks(model: SemiSupervisedModel, masks: Any, geometry: dict[str, Any]) -> Any:
    """Masks `(B, H, W)` or `(B, H, W, 1)` in the weak view's geometry, int32 `(B, S, S)`, 255 outside."""
    if len(masks.shape) == 4:
        masks = ops.squeeze(masks, -1)
    return model.views.mask(masks, geometry)


def supervised_terms(
    model: SemiSupervisedModel, outputs: dict[str, Any], targets: dict[str, Any], geometry: dict[str, Any]
) -> dict[str, Any]:
    """Eq. 1 and Eq. 2 on the logits of labelled views; 0 for a head or a target that is missing."""
    terms = {"mask_supervised": ops.zeros(()), "label_supervised": ops.zeros(())}
    if "mask_logits" in outputs and "mask" in targets:
        masks = view_masks(model, targets["mask"], geometry)
        terms["mask_supervised"] = model.segmentation_loss(masks, outputs["mask_logits"])
    if "label_logits" in outputs and "label" in targets:
        labels = ops.reshape(ops.cast(targets["label"], "int32"), (-1,))
        terms["label_supervised"] = masked_cross_entropy(labels, outputs["label_logits"])
    return terms


def supervised_predictions(
    model: SemiSupervisedModel, outputs: dict[str, Any], targets: dict[str, Any], geometry: dict[str, Any]
) -> tuple[dict, dict]:
    """Probabilities of the labelled views, and their targets, for metrics."""
    predictions, truth = {}, {}
    if "mask_logits" in outputs and "mask" in targets:
        predictions["mask"] = ops.softmax(ops.cast(outputs["mask_logits"], "float32"))
        truth["mask"] = view_masks(model, targets["mask"], geometry)
    if "label_logits" in outputs and "label" in targets:
        predictions["label"] = ops.softmax(ops.cast(outputs["label_logits"], "float32"))
        truth["label"] = targets["label"]
    return predictions, truth
