from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.evaluation import (
    contrast_maps,
    save_boundary_figure,
    save_class_similarity,
    save_similarity_curves,
)
from keras_semimed.evaluation.contrast import maps_of_features
from keras_semimed.losses import LowContrastLoss
from keras_semimed.models import LoCo
from tests.losses import low_contrast_oracle as oracle
from tests.models.common import SIZE, batches, image_set
from tests.models.test_loco import arguments


def halves(num_classes=2):
    """One image whose left and right half have embeddings of cosine 0.6; the prediction begins a column late."""
    features = np.zeros((1, 4, 6, 2), "float32")
    features[:, :, :3] = (2, 0)
    features[:, :, 3:] = (1.8, 2.4)
    masks, predictions = np.zeros((2, 1, 4, 6), "uint8")
    masks[:, :, 3:] = 1
    predictions[:, :, 4:] = 1
    return maps_of_features(features, masks, predictions, LowContrastLoss(neighbours=8, num_classes=num_classes))


def random_maps(count=2, num_classes=3):
    random = np.random.default_rng(0)
    features = random.normal(size=(count, 4, 5, 6)).astype("float32") + 0.5
    masks, predictions = (random.integers(0, num_classes, (count, 4, 5)).repeat(4, 1).repeat(4, 2) for _ in range(2))
    masks[0, :, :3] = 255
    loss = LowContrastLoss(neighbours=24, num_classes=num_classes)
    return features, masks, predictions, maps_of_features(features, masks, predictions, loss)


def test_made_features_have_hand_computed_similarities():
    maps = halves()
    expected = [[1, 0.6], [0.6, 1]]
    np.testing.assert_allclose(maps.class_similarity, expected, atol=1e-6)
    np.testing.assert_allclose(maps.pixel_similarity, expected, atol=1e-6)
    assert maps.inter_class_similarity == pytest.approx(0.6) and maps.boundary_similarity == pytest.approx(0.6)
    # 8 neighbours reach one column far: the truth's boundary has the columns 2 and 3, the prediction's 3 and 4, of
    # which only the first sees the other half.
    columns = np.arange(6)
    assert (maps.truth.pixels == np.isin(columns, (2, 3))).all()
    assert (maps.predicted.pixels == np.isin(columns, (3, 4))).all()
    np.testing.assert_allclose(maps.truth.scores[0, 1], [0, 0, 0.6, 0.6, 0, 0], atol=1e-6)
    np.testing.assert_allclose(maps.predicted.scores[0, 1], [0, 0, 0, 0.6, 1, 0], atol=1e-6)
    # 30 % of its 8 pixels, the most similar ones first; the 4 of column 4 tie.
    assert (maps.predicted.selected == (columns == 4)).all()


def test_a_class_that_is_absent_has_no_similarity():
    maps = halves(num_classes=3)
    assert np.isnan(maps.class_similarity[2]).all() and np.isnan(maps.class_similarity[:, 2]).all()
    np.testing.assert_array_equal(np.isnan(maps.class_similarity), np.isnan(maps.pixel_similarity))
    assert maps.inter_class_similarity == pytest.approx(0.6)
    features, masks, predictions = np.ones((1, 4, 4, 2), "float32"), np.ones((1, 8, 8), int), np.ones((1, 8, 8), int)
    lonely = maps_of_features(features, masks, predictions, LowContrastLoss())
    assert np.isnan(lonely.inter_class_similarity) and np.isnan(lonely.boundary_similarity)


def test_upsampled_features_give_what_the_full_resolution_form_gives():
    features, masks, predictions, maps = random_maps()
    count, height, width = masks.shape
    z = oracle.embeddings(features, features, (height, width))
    labels = oracle.pixel_labels(masks, predictions, (masks != 255).astype("float32"), 3)
    means = oracle.class_embeddings(z, labels, masks.size, 3)
    half = labels[: masks.size]
    for a in range(3):
        for b in range(3):
            expected = oracle.cosine(z[: masks.size][half == a], means[b]).mean()
            assert maps.pixel_similarity[a, b] == pytest.approx(expected, abs=1e-5)
            assert maps.class_similarity[a, b] == pytest.approx(oracle.cosine(means[a], means[b]), abs=1e-5)
    scores = oracle.boundary_scores(z, labels, (2 * count, height, width), 24)
    found = np.concatenate([maps.truth.scores, maps.predicted.scores]).ravel()
    edges = np.concatenate([maps.truth.pixels, maps.predicted.pixels]).ravel()
    assert set(np.flatnonzero(edges)) == set(scores)
    np.testing.assert_allclose([found[p] for p in scores], list(scores.values()), atol=1e-5)
    assert maps.prediction.dtype == "int32" and maps.similarities.shape == (3, *masks.shape)


def test_of_a_model():
    data = image_set(3, 5)
    model = LoCo(**arguments(boundary=False, neighbours=8))
    whole = contrast_maps(model, data.images, data.masks)
    parts = contrast_maps(model, data.images, data.masks[..., None], batch_size=2)
    predicted = model.predict(data.images, verbose=0)["mask"].argmax(-1)
    assert (whole.prediction == predicted).mean() > 0.999
    assert whole.truth.pixels.any() and whole.truth.scores.shape == (3, SIZE, SIZE)
    for a, b in zip(keras.tree.flatten(tuple(whole)), keras.tree.flatten(tuple(parts)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # Features and their projections are two spaces; the teacher and the student are two networks.
    decoder = contrast_maps(model, data.images, data.masks, space="decoder")
    assert abs(decoder.inter_class_similarity - whole.inter_class_similarity) > 1e-4
    projector = model.network.head_layers["projection"]
    projector.set_weights([-0.5 * w for w in projector.get_weights()])
    again = contrast_maps(model, data.images, data.masks)
    assert again.inter_class_similarity == pytest.approx(whole.inter_class_similarity, abs=1e-6)
    model.use_teacher = False
    student = contrast_maps(model, data.images, data.masks)
    assert abs(student.inter_class_similarity - whole.inter_class_similarity) > 1e-4


def test_over_the_epochs_of_a_training():
    data = image_set(2, 5)
    model = LoCo(**arguments(inter_class=False, boundary=False, use_unlabeled=False))  # compiles fastest
    model.compile()
    curve: list[float] = []

    def similarity():
        return contrast_maps(model, data.images, data.masks, space="decoder").inter_class_similarity

    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: curve.append(similarity()))
    model.fit(batches(steps=1), epochs=2, verbose=0, callbacks=[note])
    assert len(set(curve)) == 2
    # The weights that a callback sees are those of its epoch's end.
    assert curve[-1] == pytest.approx(similarity(), abs=1e-6)


def test_pictures(tmp_path):
    _, masks, _, maps = random_maps()
    images = np.random.default_rng(0).integers(0, 255, (*masks.shape, 3)).astype("uint8")
    save_class_similarity(tmp_path / "classes.png", maps, ("ground", "a", "b"))
    save_class_similarity(tmp_path / "absent.png", halves(num_classes=3))
    save_similarity_curves(tmp_path / "curves.png", {"LoCo": [0.5, 0.2], "M1": [0.6, 0.6, 0.6]})
    save_boundary_figure(tmp_path / "one.png", images, masks, maps)
    save_boundary_figure(tmp_path / "epochs.png", images, masks, dict.fromkeys("abcd", maps), boundary="predicted")
    sizes = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            sizes[path.stem] = picture.size
    assert set(sizes) == {"classes", "absent", "curves", "one", "epochs"}
    # Truth, prediction and similarity, and truth and four similarities.
    assert sizes["one"][1] == sizes["epochs"][1] and sizes["one"][0] < sizes["epochs"][0]


def test_bad_input_is_named(tmp_path):
    data = image_set(2, 5)
    model = LoCo(**arguments(inter_class=False, boundary=False, use_unlabeled=False))
    with pytest.raises(ValueError, match="`space` must be 'projection' or 'decoder', found 'pixels'"):
        contrast_maps(model, data.images, data.masks, space="pixels")
    with pytest.raises(ValueError, match="does not contrast.* take space='decoder'"):
        contrast_maps(model, data.images, data.masks)
    with pytest.raises(ValueError, match=r"masks \(2, 32, 16\) must be as many and as large as the images"):
        contrast_maps(model, data.images, data.masks[..., :16], space="decoder")
    assert contrast_maps(model, data.images, data.masks, space="decoder").truth.pixels.any()
    with pytest.raises(ValueError, match="`boundary` must be"):
        save_boundary_figure(tmp_path / "x.png", data.images, data.masks, {}, boundary="both")
    with pytest.raises(ValueError, match="must not be empty"):
        save_boundary_figure(tmp_path / "x.png", data.images, data.masks, {})
