"""TensorBoard's event files, written without TensorFlow."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_semimed.text import install


class EventFile:
    """Pictures and figures for TensorBoard, on every backend.

    Args:
        log_dir: Folder; a file in it is made with the first thing that is written.

    Raises:
        ImportError: If the package `tensorboard` is not installed.
    """

    def __init__(self, log_dir: Path) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(f"log_dir needs the package tensorboard: {install('tensorboard')}") from error
        self.log_dir = log_dir
        self._make: Any = EventFileWriter
        self._writer: Any = None

    def image(self, tag: str, content: bytes, step: int) -> None:
        """Adds a PNG picture."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = Image.open(io.BytesIO(content)).size
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._write([Summary.Value(tag=tag, image=picture)], step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write([Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()], step)

    def close(self) -> None:
        """Closes the file; what is written later gets one of its own."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        if self._writer is None:
            self._writer = self._make(str(self.log_dir))
        summary = summary_pb2.Summary(value=values)
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()
