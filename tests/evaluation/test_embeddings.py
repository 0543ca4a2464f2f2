from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.evaluation.embeddings import Embeddings, collect_embeddings, plane


class Projected(keras.layers.Layer):
    """Embeds every second pixel by its first two channels."""

    def features(self, images, training):
        assert training is False
        return ops.cast(images, "float32")[:, 1::2, 1::2]

    def project(self, features, training):
        return features[..., :2]


class Headed(keras.layers.Layer):
    """Embeds images by the mean of their channels; a name says that it can."""

    image_projector = None

    def call(self, images, heads, training):
        assert heads and not training
        return {"image_embeddings": ops.mean(ops.cast(images, "float32"), axis=(1, 2))}


def test_images_where_there_are_classes():
    images = np.arange(5)[:, None, None, None] * np.ones((1, 4, 4, 3), "uint8")
    found = collect_embeddings(
        SimpleNamespace(predictor=Headed()), images.astype("uint8"), None, np.arange(5) % 2, ("a", "b"), batch_size=2
    )
    np.testing.assert_array_equal(found.vectors, np.repeat(np.arange(5.0)[:, None], 3, axis=1))
    assert found.classes.tolist() == [0, 1, 0, 1, 0] and found.class_names == ["a", "b"]


def test_pixels_by_their_true_class_and_as_many_of_each():
    masks = np.zeros((4, 64, 64), "uint8")
    masks[:, :, 40:] = 1
    masks[0] = 255
    images = np.zeros((4, 64, 64, 3), "uint8")
    images[..., 0], images[..., 1] = 10 * (masks == 0), 10 * (masks == 1)
    found = collect_embeddings(SimpleNamespace(predictor=Projected()), images, masks)
    assert np.bincount(found.classes).tolist() == [750, 750]
    # Normalised, and each pixel's class is that of the place where its vector comes from.
    np.testing.assert_array_equal(found.vectors, np.eye(2)[found.classes])
    assert collect_embeddings(SimpleNamespace(predictor=Projected()), images) is None


def test_a_model_without_embeddings_has_none():
    assert collect_embeddings(SimpleNamespace(), np.zeros((3, 4, 4, 3)), labels=np.zeros(3)) is None


def test_the_plane_keeps_neighbours_together(tmp_path):
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    classes = np.arange(40) % 2
    vectors = np.eye(6)[classes] + random.normal(0, 0.05, (40, 6))
    embeddings = Embeddings(vectors.astype("float16"), classes, ["a", "b"], "vectors")
    embeddings.save(tmp_path / "embeddings.npz")
    loaded = Embeddings.load(tmp_path / "embeddings.npz")
    assert (loaded.class_names, loaded.source) == (["a", "b"], "vectors")
    points = plane(loaded)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(40)
    assert (classes[distances.argmin(axis=1)] == classes).all()
    np.testing.assert_array_equal(points, plane(embeddings))
