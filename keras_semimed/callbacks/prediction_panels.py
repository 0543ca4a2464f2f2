"""Watches the predictions on a few images while a model trains."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_semimed.callbacks.event_file import EventFile
from keras_semimed.evaluation.figures import overlay, rgb
from keras_semimed.files import whole_file

GAP = 4
TAG = "predictions"


class PredictionPanels(keras.callbacks.Callback):
    """Draws the predictions on the same few images every so many epochs, one row an image.

    The panels of a row: the image; with masks, the truth in red; the prediction in green; with masks, both, yellow
    where they agree. It changes nothing.

    ```python
    panels = PredictionPanels(images, masks, folder="panels", every=5)
    model.fit(train, epochs=epochs, callbacks=[panels])  # panels/epoch_0005.png, ...
    ```

    Args:
        images: 0..255, as `predict` takes them; a handful. Shape: `(N, H, W, C)`.
        masks: Class indices, 255 = ignored. Shape: `(N, H, W)` or `(N, H, W, 1)`.
        folder: Where PNG files go, one an epoch; made where it is missing. None: no files.
        every: Epochs between two pictures.
        log_dir: Where TensorBoard's event files go; needs the package `tensorboard`. None: none.

    Raises:
        ValueError: If shapes do not fit, `every` is below 1, or there is nowhere to write to.
        ImportError: If `log_dir` is given and `tensorboard` is not installed.
    """

    def __init__(
        self,
        images: np.ndarray,
        masks: np.ndarray | None = None,
        folder: str | Path | None = None,
        every: int = 1,
        log_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.images = np.asarray(images)
        self.masks = None if masks is None else np.asarray(masks)
        if self.masks is not None and self.masks.ndim == 4:
            self.masks = self.masks[..., 0]
        if self.images.ndim != 4 or not len(self.images):
            raise ValueError(f"`images` must be (N, H, W, C) with at least one image, found {self.images.shape}")
        if self.masks is not None and self.masks.shape != self.images.shape[:3]:
            raise ValueError(f"masks {self.masks.shape} do not fit the images {self.images.shape}")
        if every < 1:
            raise ValueError(f"`every` must be at least 1 epoch, found {every}")
        if folder is None and log_dir is None:
            raise ValueError("give a folder, a log_dir, or both; there is nowhere to write to")
        self.folder = None if folder is None else Path(folder)
        self.every = every
        self._events = None if log_dir is None else EventFile(Path(log_dir))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Predicts once and makes the folder: what is wrong with either shall show before the training, not after."""
        del logs
        self._masks()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws, if it is this epoch's turn."""
        del logs
        if (epoch + 1) % self.every:
            return
        content = _png(self._rows(self._masks()))
        if self.folder is not None:
            with whole_file(self.folder / f"epoch_{epoch + 1:04d}.png") as temporary:
                temporary.write_bytes(content)
        if self._events is not None:
            self._events.image(TAG, content, epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Empties the buffers."""
        del logs
        if self._events is not None:
            self._events.close()

    def _masks(self) -> np.ndarray:
        """Predicted class indices `(N, H, W)`."""
        predictions = self.model.predict_on_batch(self.images)
        if "mask" not in predictions:
            raise ValueError("PredictionPanels draws masks, and this model predicts none; leave the callback out")
        masks = keras.ops.convert_to_numpy(predictions["mask"]).argmax(axis=-1)
        if masks.shape != self.images.shape[:3]:
            raise ValueError(f"the model predicts masks {masks.shape[1:]} for images {self.images.shape[1:3]}")
        return masks

    def _rows(self, predictions: np.ndarray) -> np.ndarray:
        """All panels as one picture `(N * (H + gap) - gap, ..., 3)`, white between them."""
        rows = []
        for index, (image, prediction) in enumerate(zip(self.images, predictions, strict=True)):
            nothing = np.zeros_like(prediction)
            panels = [rgb(image), overlay(image, nothing, prediction)]
            if self.masks is not None:
                truth = self.masks[index]
                panels.insert(1, overlay(image, truth, nothing))
                panels.append(overlay(image, truth, prediction))
            rows.append(_joined(panels, axis=1))
        return _joined(rows, axis=0)


def _joined(parts: list[np.ndarray], axis: int) -> np.ndarray:
    shape = list(parts[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, "uint8")
    return np.concatenate([piece for part in parts for piece in (part, white)][:-1], axis=axis)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
