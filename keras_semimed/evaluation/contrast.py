"""What LoCo's contrast does to its features: similarity of classes and of boundaries (Fig. 3 to 5 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from keras import ops

from keras_semimed.losses.low_contrast import LowContrastLoss
from keras_semimed.losses.low_resolution import Upsampling

if TYPE_CHECKING:
    from keras_semimed.models import LoCo


class BoundaryMaps(NamedTuple):
    """Boundaries of N masks (Eq. 13).

    Attributes:
        pixels: the pixels near another class. Shape: `(N, H, W)`, bool.
        scores: minimum cosine of a boundary pixel's embedding with those of its neighbours, 0 elsewhere; high where
            the contrast is low. Shape: `(N, H, W)`, float32.
        selected: the boundary pixels that BCE takes. Shape: `(N, H, W)`, bool.
    """

    pixels: np.ndarray
    scores: np.ndarray
    selected: np.ndarray


class ContrastMaps(NamedTuple):
    """Similarities of the embeddings of N images.

    Attributes:
        prediction: most probable class of each pixel. Shape: `(N, H, W)`, int32.
        similarities: cosine of each pixel's embedding with each class embedding, the mean over the true pixels of the
            class in all images (Eq. 9). Shape: `(K, N, H, W)`, float32.
        pixel_similarity: its mean over the true pixels of the class of the row; NaN where a class is absent. Shape:
            `(K, K)`, float64.
        class_similarity: cosine between the class embeddings, likewise. Shape: `(K, K)`, float64.
        truth: boundaries of the truth.
        predicted: boundaries of the prediction.
    """

    prediction: np.ndarray
    similarities: np.ndarray
    pixel_similarity: np.ndarray
    class_similarity: np.ndarray
    truth: BoundaryMaps
    predicted: BoundaryMaps

    @property
    def inter_class_similarity(self) -> float:
        """Mean cosine between pixels and the embeddings of other classes (Fig. 3); NaN with fewer than two classes.

        Every pair of classes weighs the same, however many pixels it has.
        """
        others = self.pixel_similarity[~np.eye(len(self.pixel_similarity), dtype=bool)]
        others = others[~np.isnan(others)]
        return float(others.mean()) if others.size else float("nan")

    @property
    def boundary_similarity(self) -> float:
        """Mean score of the truth's boundary pixels; NaN without any."""
        scores = self.truth.scores[self.truth.pixels]
        return float(scores.mean()) if scores.size else float("nan")


def contrast_maps(
    model: LoCo, images: np.ndarray, masks: np.ndarray, space: str = "projection", batch_size: int = 8
) -> ContrastMaps:
    """Looks at some labelled images through a trained LoCo, as its contrast does, both selections switched on.

    For a curve over epochs (Fig. 3), call it at the end of each one, on every backend:

    ```python
    curve = []
    note = lambda epoch, logs: curve.append(contrast_maps(model, images, masks).inter_class_similarity)
    model.fit(train, epochs=epochs, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)])
    ```

    Args:
        model: The weights that `predict` uses are looked at, the teacher's where `use_teacher` is True.
        images: 0..255, as `predict` takes them. Shape: `(N, H, W, 3)`. All of them are held at their full size at once:
            a few dozen.
        masks: Class indices; the loss' `ignore` (255) leaves a pixel out. Shape: `(N, H, W)` or `(N, H, W, 1)`.
        space: `"projection"`, the embeddings that are contrasted, or `"decoder"`, the features before them, which a
            model without contrast has too: the same space for all models of a comparison.
        batch_size: Images a forward pass.

    Returns:
        NumPy arrays.

    Raises:
        ValueError: If `space` is unknown, the model has no trained projector, or shapes do not fit.
    """
    if space not in ("projection", "decoder"):
        raise ValueError(f"`space` must be 'projection' or 'decoder', found {space!r}.")
    if space == "projection" and not model.contrasts:
        raise ValueError("the model does not contrast, so its projector is untrained; take space='decoder'.")
    masks = np.asarray(masks)[..., 0] if np.ndim(masks) == 4 else np.asarray(masks)
    size = np.shape(images)[1:3]
    if len(images) == 0 or masks.shape != (len(images), *size):
        raise ValueError(f"masks {masks.shape} must be as many and as large as the images {np.shape(images)}.")
    features, predictions = [], []
    for start in range(0, len(images), batch_size):
        batch = ops.convert_to_tensor(images[start : start + batch_size])
        found = model.predictor(batch, training=False)
        predictions.append(ops.convert_to_numpy(ops.argmax(found["mask_logits"], axis=-1)).astype("int32"))
        seen = found["decoded" if space == "decoder" else "projection"]
        features.append(ops.convert_to_numpy(ops.cast(seen, "float32")))
    loss = LowContrastLoss(**{**model.contrast_loss.get_config(), "inter_class": True, "boundary": True})
    return maps_of_features(np.concatenate(features), masks, np.concatenate(predictions), loss)


def maps_of_features(
    features: np.ndarray, masks: np.ndarray, predictions: np.ndarray, loss: LowContrastLoss
) -> ContrastMaps:
    """Computes what `contrast_maps` returns from features.

    Args:
        features: Features before they are upsampled to the masks' size. Shape: `(N, h, w, D)`, float32.
        masks: True classes, or the loss' `ignore`. Shape: `(N, H, W)`, integers.
        predictions: Predicted classes. Shape: `(N, H, W)`, integers.
        loss: Decides on neighbours and selections; both selections must be on.
    """
    masks, predictions = masks.astype("int32"), predictions.astype("int32")
    count = len(masks)
    known = (masks != loss.ignore).astype("float32")
    # The same images twice: with the truth as labelled ones, which make the class embeddings, and with the prediction.
    maps = loss.maps(*map(ops.convert_to_tensor, (features, masks, features, predictions, known)))
    similarities = ops.convert_to_numpy(maps.similarities)[:, :count]
    edges, scores, selected = map(ops.convert_to_numpy, (maps.boundary_pixels, maps.boundary_scores, maps.boundary))
    return ContrastMaps(
        predictions,
        similarities,
        _pixel_similarity(similarities, masks),
        _class_similarity(features, masks, loss.num_classes),
        BoundaryMaps(edges[:count], scores[:count], selected[:count]),
        BoundaryMaps(edges[count:], scores[count:], selected[count:]),
    )


def _pixel_similarity(similarities: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean over the pixels of a class (row) of the cosine with the embedding of a class (column): `(K, K)`."""
    classes = len(similarities)
    result = np.full((classes, classes), np.nan)
    present = [index for index in range(classes) if (masks == index).any()]
    for index in present:
        result[index, present] = similarities[present][:, masks == index].mean(axis=1, dtype="float64")
    return result


def _class_similarity(features: np.ndarray, masks: np.ndarray, num_classes: int) -> np.ndarray:
    """Cosine between the means of the upsampled features of each class (Eq. 9): `(K, K)`, NaN where one is absent."""
    upsampling = Upsampling(features.shape[1:3], masks.shape[1:])
    one_hot = (masks == np.arange(num_classes)[:, None, None, None]).astype("float32")
    weights = ops.convert_to_numpy(upsampling.gather(ops.convert_to_tensor(one_hot))).astype("float64")  # (K, N, h, w)
    embeddings = np.tensordot(weights, features.astype("float64"), axes=3)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings = embeddings / np.where(one_hot.any(axis=(1, 2, 3))[:, None] & (lengths > 0), lengths, np.nan)
    return embeddings @ embeddings.T
