"""What every reader of a published data set gives: images with masks, and perhaps a class and a group each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

import numpy as np

from keras_semimed.data.images import read_image, read_values
from keras_semimed.data.images.levels import lesion_of
from keras_semimed.data.progress import progress
from keras_semimed.data.readers.archives import FileTree
from keras_semimed.data.splits.duplicates import near_duplicate_groups
from keras_semimed.text import CONTROL, shortened


class Pair(NamedTuple):
    """One image with its mask."""

    name: str
    image: np.ndarray
    """`(H, W, 3)` uint8."""
    mask: np.ndarray
    """`(H, W)` uint8, 1 = lesion."""


class SourceFiles(NamedTuple):
    """Paths of one image and its masks, relative to the folder that holds the data set."""

    name: str
    image: str
    masks: tuple[str, ...]
    """One lesion each; their union is the mask."""


class Source:
    """The images of a data set in a folder or zip, in a fixed order.

    A subclass finds `files` in a `tree`, and says what the set is called and how to get it.
    """

    TITLE: ClassVar[str]
    HOW_TO_GET: ClassVar[str]
    CLASSES: ClassVar[tuple[str, ...]] = ()
    """Names of the image classes; empty where the set has masks only."""
    TABLES: ClassVar[tuple[str, ...]] = ()
    """Further files that the set is read from."""

    path: Path
    files: list[SourceFiles]
    tree: FileTree

    def __len__(self) -> int:
        return len(self.files)

    def is_published(self, name: str) -> bool:
        """Whether an image of this name belongs to the published set."""
        del name
        return True

    def check_names(self) -> None:
        """Refuses files that only lie as the published ones do; a part of these will do.

        Raises:
            ValueError: If more than a tenth of the images have names that the set does not have, or one holds control
                characters.
        """
        for files in self.files:
            if CONTROL.search(files.name):
                raise ValueError(f"{self.path}: the name {shortened(files.name)} holds control characters; rename it")
        strange = [files.name for files in self.files if not self.is_published(files.name)]
        if len(strange) > len(self.files) / 10:
            count = f"{len(strange)} of {len(self.files)} images"
            raise ValueError(
                f"{self.path}: by their names {count} are none of {self.TITLE}, such as {strange[0]!r}; "
                f"{self.HOW_TO_GET}, or read images of your own with from_folder"
            )

    def __iter__(self) -> Iterator[Pair]:
        with self.tree.opened() as open_member:
            for files in self.files:
                yield self._read(files, open_member)

    def fingerprint(self) -> str:
        """Returns a hash of the names and sizes of all files, the same for a folder and its zip."""
        members = [member for files in self.files for member in (files.image, *files.masks)]
        return self.tree.fingerprint([*members, *self.TABLES])

    def group(self, name: str) -> str:
        """Returns the group of an image: what must stay on one side of a split."""
        return name

    def label(self, name: str) -> int | None:
        """Returns the class of an image, an index into `CLASSES`; None where the set has masks only."""
        return None

    def _read(self, files: SourceFiles, open_member: Callable[[str], IO[bytes]]) -> Pair:
        with open_member(files.image) as file:
            image = read_image(file, self.tree.name(files.image))
        mask = np.zeros(image.shape[:2], bool)
        for member in files.masks:
            with open_member(member) as file:
                lesion = lesion_of(read_values(file, self.tree.name(member), True), self.tree.name(member))
            if lesion.shape != mask.shape:
                raise ValueError(
                    f"{self.tree.name(member)}: the mask is {lesion.shape} (height, width) and its image "
                    f"{mask.shape}; they must be equal"
                )
            mask |= lesion
        return Pair(files.name, image, mask.astype("uint8"))


def near_duplicates(source: Source) -> dict[str, str]:
    """Returns the group of near-duplicates of each image, called after its first member; decodes every image."""
    first = near_duplicate_groups(pair.image for pair in progress(source, "looking for near-duplicates"))
    return {files.name: source.files[index].name for files, index in zip(source.files, first, strict=True)}
