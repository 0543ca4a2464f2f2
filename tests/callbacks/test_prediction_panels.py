from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from keras_semimed.callbacks import PredictionPanels


class Bright:
    """Stands in for a model: foreground where an image is bright."""

    def predict_on_batch(self, images):
        bright = images[..., 0] > 99
        return {"mask": keras.ops.convert_to_tensor(np.stack([~bright, bright], -1).astype("float32"))}


def watch(panels: PredictionPanels, epochs: int) -> None:
    """Calls the callback as `fit` does."""
    panels.set_model(Bright())
    panels.on_train_begin()
    for epoch in range(epochs):
        panels.on_epoch_end(epoch, {})
    panels.on_train_end()


def pictures():
    """Two images whose upper half is bright; the truth is the left half."""
    images = np.zeros((2, 8, 8, 1), "uint8")
    images[:, :4] = 100
    masks = np.zeros((2, 8, 8, 1), "uint8")
    masks[:, :, :4] = 1
    return images, masks


def test_panels_in_the_papers_colours(tmp_path):
    watch(PredictionPanels(*pictures(), folder=tmp_path / "panels", every=2), epochs=5)
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["epoch_0002.png", "epoch_0004.png"]
    with Image.open(tmp_path / "panels" / "epoch_0004.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 8 + 4, 4 * 8 + 3 * 4, 3)
    image, truth, prediction, both = (pixels[12:, start : start + 8] for start in (0, 12, 24, 36))
    assert image[0, 0].tolist() == [100, 100, 100] and image[7, 0].tolist() == [0, 0, 0]
    red, green, blue = both[0, 0]
    assert red == green > blue  # yellow: both
    assert both[7, 0, 0] > both[7, 0, 1] and both[0, 7, 1] > both[0, 7, 0]  # red: truth alone; green: prediction alone
    assert truth[0, 0, 0] > truth[0, 0, 1] and prediction[0, 7, 1] > prediction[0, 7, 0]
    assert (pixels[8:12] == 255).all() and (pixels[:, 8:12] == 255).all()


def test_without_truth_there_are_two_panels(tmp_path):
    watch(PredictionPanels(pictures()[0], folder=tmp_path), epochs=1)
    with Image.open(tmp_path / "epoch_0001.png") as picture:
        assert picture.size == (2 * 8 + 4, 2 * 8 + 4)


def test_tensorboard_gets_the_same_pictures(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    watch(PredictionPanels(*pictures(), folder=tmp_path, log_dir=tmp_path / "events"), epochs=2)
    (path,) = (tmp_path / "events").iterdir()
    events = [event for event in loader.LegacyEventFileLoader(str(path)).Load() if event.summary.value]
    assert [event.step for event in events] == [1, 2]
    value = events[1].summary.value[0]
    assert value.tag == "predictions"
    assert value.image.encoded_image_string == (tmp_path / "epoch_0002.png").read_bytes()


def test_watching_changes_nothing(tmp_path):
    images, masks = (np.repeat(values, 4, axis=0) for values in pictures())
    trained = []
    for callbacks in ([], [PredictionPanels(images[:2], masks[:2], tmp_path)]):
        keras.utils.set_random_seed(0)
        pixels = keras.Input((8, 8, 1))
        normalized = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(pixels))
        model = keras.Model(pixels, {"mask": keras.layers.Conv2D(2, 1, activation="softmax")(normalized)})
        model.compile("adam", {"mask": "mse"})
        model.fit(images, {"mask": np.eye(2)[masks[..., 0]]}, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
        trained.append(model.get_weights())
    assert len(list(tmp_path.iterdir())) == 2
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_input_is_refused_before_the_training(tmp_path):
    images, masks = pictures()
    with pytest.raises(ValueError, match=r"masks \(2, 8, 4\) do not fit"):
        PredictionPanels(images, masks[:, :, :4], tmp_path)
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        PredictionPanels(images, masks, tmp_path, every=0)
    with pytest.raises(ValueError, match="nowhere to write"):
        PredictionPanels(images)
    with pytest.raises(ValueError, match="at least one image"):
        PredictionPanels(images[:0], folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        watch(PredictionPanels(images, folder=tmp_path / "file" / "panels"), epochs=0)
    small = PredictionPanels(images, folder=tmp_path / "small")
    small.set_model(type("Half", (), {"predict_on_batch": lambda self, x: {"mask": np.zeros((2, 4, 4, 2))}})())
    with pytest.raises(ValueError, match=r"predicts masks \(4, 4\) for images \(8, 8\)"):
        small.on_train_begin()
    small.set_model(type("Classifier", (), {"predict_on_batch": lambda self, x: {"label": np.zeros((2, 2))}})())
    with pytest.raises(ValueError, match="predicts none"):
        small.on_train_begin()
    assert not (tmp_path / "small").exists()
