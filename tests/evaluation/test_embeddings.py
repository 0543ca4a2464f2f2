from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_semimed.evaluation.embeddings import Embeddings, collect_embeddings, plane
from keras_semimed.models import Hermes, LoCo, SemiSupervisedModel, Supervised
from tests.models import common, test_loco
from tests.models.common import image_set


class Embedding(SemiSupervisedModel):
    """Embeds images by the means of their channels, and every second pixel by its first two."""

    def __init__(self, *kinds):
        super().__init__()
        self.kinds = kinds
        self.built = True

    @property
    def embedding_heads(self):
        return {kind: "head" for kind in self.kinds}

    def embed(self, images, of="images"):
        images = ops.cast(images, "float32")
        return images[:, 1::2, 1::2, :2] if of == "pixels" else ops.mean(images, axis=(1, 2))


def test_images_where_there_are_classes():
    images = np.arange(5)[:, None, None, None] * np.ones((1, 4, 4, 3), "uint8")
    for kinds, source in ((("images", "pixels"), "image embeddings"), ((), "means of the deepest encoder features")):
        found = collect_embeddings(
            Embedding(*kinds), images.astype("uint8"), None, np.arange(5) % 2, ("a", "b"), batch_size=2
        )
        np.testing.assert_array_equal(found.vectors, np.repeat(np.arange(5.0)[:, None], 3, axis=1))
        assert found.classes.tolist() == [0, 1, 0, 1, 0] and found.class_names == ["a", "b"]
        assert found.source == source


def test_images_and_pixels_of_unknown_classes_are_left_out():
    images, unknown = np.zeros((3, 4, 4, 3), "uint8"), np.full(3, 255)
    found = collect_embeddings(Embedding("images"), images, None, np.array([0, 255, 1]), ("a", "b"))
    assert found.classes.tolist() == [0, 1] and len(found.vectors) == 2
    for few in (unknown, np.array([0, 255, 255])):
        assert collect_embeddings(Embedding("images"), images, None, few) is None
    assert collect_embeddings(Embedding("pixels"), images, np.full((3, 4, 4), 255, "uint8")) is None


def test_pixels_by_their_true_class_and_as_many_of_each():
    masks = np.zeros((4, 64, 64), "uint8")
    masks[:, :, 40:] = 1
    masks[0] = 255
    images = np.zeros((4, 64, 64, 3), "uint8")
    images[..., 0], images[..., 1] = 10 * (masks == 0), 10 * (masks == 1)
    for kinds, labels in ((("pixels",), np.arange(4)), (("images", "pixels"), None)):
        found = collect_embeddings(Embedding(*kinds), images, masks, labels)
        assert np.bincount(found.classes).tolist() == [750, 750]
        # Normalised, and each pixel's class is that of the place where its vector comes from.
        np.testing.assert_array_equal(found.vectors, np.eye(2)[found.classes])
        assert collect_embeddings(Embedding(*kinds), images, None, labels) is None


def test_embeddings_of_the_methods():
    data = image_set(3, 5)
    given = (data.images, data.masks, data.labels)
    hermes = Hermes(**common.arguments(exchange="none"))
    found = collect_embeddings(hermes, *given)
    expected = hermes.predictor(data.images, training=False)["image_embeddings"]
    np.testing.assert_allclose(found.vectors, ops.convert_to_numpy(expected), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors.astype("float32"), axis=1), 1, atol=1e-2)
    loco = LoCo(**test_loco.arguments(boundary=False))
    assert collect_embeddings(loco, *given).source == "embeddings of pixels"
    supervised = Supervised(**common.arguments(tasks="segmentation"))
    found = collect_embeddings(supervised, *given)
    deepest = supervised.predictor.encode(data.images, training=False)["P5"]
    np.testing.assert_allclose(found.vectors, ops.convert_to_numpy(deepest).mean((1, 2)), rtol=1e-2, atol=1e-3)
    assert supervised.embed(data.images, of="pixels") is None


def test_a_model_of_another_package_has_none():
    assert collect_embeddings(keras.Sequential(), np.zeros((3, 4, 4, 3)), labels=np.zeros(3)) is None
    assert collect_embeddings(Embedding("images"), np.zeros((1, 4, 4, 3)), labels=np.zeros(1)) is None


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
