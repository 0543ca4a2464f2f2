"""Embeddings of a trained model and their picture in the plane."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_semimed.evaluation.batches import filled
from keras_semimed.files import read_arrays, whole_file
from keras_semimed.models import SemiSupervisedModel
from keras_semimed.models.inference import Question

MOST_PIXELS = 1500


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Vectors that a model makes of images or of their pixels.

    Attributes:
        vectors: float16. Shape: `(N, D)`.
        classes: true class of each. Shape: `(N,)`, integers.
        class_names: names of these classes; empty: unknown.
        source: what the vectors are, for a caption.
    """

    vectors: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    source: str

    def save(self, path: str | Path) -> None:
        """Writes an .npz file."""
        names, source = np.array(self.class_names, "str"), np.array(self.source)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, vectors=self.vectors, classes=self.classes, class_names=names, source=source)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Reads what `save` wrote."""
        found = read_arrays(path, ("vectors", "classes", "class_names", "source"))
        return cls(found["vectors"], found["classes"], found["class_names"].tolist(), str(found["source"]))


def collect_embeddings(
    model: Any,
    images: Any,
    masks: Any = None,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    batch_size: int = 16,
) -> Embeddings | None:
    """Embeds a test set in the space that the model contrasts, or, without contrast, in that of its deepest features.

    Args:
        model: Any of this package's models, or another one, for which there are no embeddings.
        images: 0..255. Shape: `(N, H, W, C)`.
        masks: True masks; they colour embeddings of pixels. Shape: `(N, H, W)`.
        labels: True classes; they colour embeddings of images. Shape: `(N,)`.
        class_names: Names of the image classes.
        batch_size: Images a forward pass.

    Returns:
        One vector an image, or, from a model with embeddings of pixels alone or where the images have no classes, at
        most 1,500 vectors of pixels, as many of each class where there are enough. None for a model of another
        package, for pixels without masks, and where the classes of less than two are known.
    """
    if not isinstance(model, SemiSupervisedModel) or len(images) < 2:
        return None
    heads = model.embedding_heads
    of_pixels = "pixels" in heads and ("images" not in heads or labels is None)
    if of_pixels and masks is None:
        return None
    embedder = Question(model, functools.partial(model.embed, of="pixels" if of_pixels else "images"))
    size = min(batch_size, len(images))
    vectors = []
    for start in range(0, len(images), size):
        batch = np.asarray(images[start : start + size])
        found = ops.convert_to_numpy(embedder.predict_on_batch(filled(batch, size)))
        vectors.append(np.asarray(found, "float32")[: len(batch)])
    found = np.concatenate(vectors)
    if of_pixels:
        return _of_pixels(found, np.asarray(masks))
    source = "image embeddings" if "images" in heads else "means of the deepest encoder features"
    classes = np.zeros(len(found), int) if labels is None else np.asarray(labels).reshape(-1)
    found, classes = found[classes != 255], classes[classes != 255]
    if len(found) < 2:  # no plane to show them on
        return None
    return Embeddings(found.astype("float16"), classes, list(class_names), source)


def _of_pixels(features: np.ndarray, masks: np.ndarray) -> Embeddings | None:
    """Vectors of pixels in the middle of each feature's cell, as many of each class; None of less than two."""
    rows, columns = (
        (np.arange(cells) * size + size // 2) // cells
        for cells, size in zip(features.shape[1:3], masks.shape[1:3], strict=True)
    )
    classes = masks[:, rows[:, None], columns].reshape(-1)
    vectors = features.reshape(-1, features.shape[-1])
    random = np.random.default_rng(0)
    known = [value for value in np.unique(classes) if value != 255]
    if np.count_nonzero(classes != 255) < 2:
        return None
    chosen = [random.permutation(np.flatnonzero(classes == value))[: MOST_PIXELS // len(known)] for value in known]
    index = np.sort(np.concatenate(chosen))
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Embeddings(vectors[index].astype("float16"), classes[index], (), "embeddings of pixels")


def plane(embeddings: Embeddings, seed: int = 0) -> np.ndarray:
    """t-SNE of the vectors by their cosine: `(N, 2)`. Neighbours mean something, distances between groups do not."""
    from sklearn.manifold import TSNE

    count = len(embeddings.vectors)
    tsne = TSNE(perplexity=min(30.0, (count - 1) / 3), metric="cosine", init="random", random_state=seed)
    return tsne.fit_transform(embeddings.vectors.astype("float32"))
