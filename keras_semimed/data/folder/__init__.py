"""Anyone's images in a plain folder; works without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.data.folder.parting import FolderParts, from_folder, part_folder
    from keras_semimed.data.folder.reading import Folder, read_folder, read_image_folder

__all__ = ["Folder", "FolderParts", "from_folder", "part_folder", "read_folder", "read_image_folder"]

__getattr__ = lazy(
    __name__,
    {
        "Folder": "reading",
        "FolderParts": "parting",
        "from_folder": "parting",
        "part_folder": "parting",
        "read_folder": "reading",
        "read_image_folder": "reading",
    },
)
