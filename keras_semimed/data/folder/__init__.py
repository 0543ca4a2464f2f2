"""Anyone's images in a plain folder; works without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.data.folder.reading import Folder, from_folder, read_folder, read_image_folder

__all__ = ["Folder", "from_folder", "read_folder", "read_image_folder"]

__getattr__ = lazy(
    __name__,
    {
        "Folder": "reading",
        "from_folder": "reading",
        "read_folder": "reading",
        "read_image_folder": "reading",
    },
)
