"""Anyone's images in a plain folder; works without TensorFlow."""

from keras_semimed.data.folder.reading import Folder, from_folder, read_folder, read_image_folder

__all__ = ["Folder", "from_folder", "read_folder", "read_image_folder"]
