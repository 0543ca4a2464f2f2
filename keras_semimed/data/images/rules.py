"""How image and mask files become the arrays that a network sees: one description for training and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from keras_semimed.data.argument_checks import check_class_names, check_image_size, check_intensity_range
from keras_semimed.data.images.letterbox import Fitted, letterbox, stretch
from keras_semimed.data.images.mask_values import MaskValues
from keras_semimed.data.images.reading import read_image, read_pair, read_picture
from keras_semimed.data.images.resizing import with_channels

if TYPE_CHECKING:
    from keras_semimed.data.arrays import ImageSet

READING = "keras_semimed.reading"
"""Entry of an exported file's metadata that says how files are read."""
NAMES = ("image_size", "channels", "keep_aspect", "intensity_range", "masks", "class_names", "mask_class_names")


@dataclass(frozen=True)
class ReadingRules:
    """What decides how a file is read.

    A data set carries it, `fit` hands it to the model, and `predict` reads by it, so that a file is read alike wherever
    it comes in.

    Args:
        image_size: Height and width that every image is brought to, in pixels.
        channels: 3 for colour (grey is repeated), 1 for grey.
        keep_aspect: Whether the aspect ratio is kept and the rest padded, or the image stretched.
        intensity_range: The values of black and white in images of more than 8 bits that do not say it themselves.
        masks: How mask files were turned into classes, in words; empty without masks.
        class_names: Names of the image classes; label `i` is `class_names[i]`.
        mask_class_names: Names of the mask classes, background first; empty where they are not named.
        mask_values: What turns mask files into classes; None where there are none, and where the rules come from a
            saved model, which reads no masks.

    Raises:
        ValueError: For a size, a number of channels or a range that there is not, or names that no classes can have.
    """

    image_size: int
    channels: int = 3
    keep_aspect: bool = False
    intensity_range: tuple[float, float] | None = None
    masks: str = ""
    class_names: tuple[str, ...] = ()
    mask_class_names: tuple[str, ...] = ()
    mask_values: MaskValues | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        if isinstance(self.channels, bool) or self.channels not in (1, 3):
            raise ValueError(f"`channels` must be 1 or 3, found {self.channels}")
        if self.intensity_range is not None:
            object.__setattr__(self, "intensity_range", check_intensity_range(self.intensity_range))
        check_class_names("class_names", self.class_names)

    def __str__(self) -> str:
        fitted = "padded to" if self.keep_aspect else "stretched to"
        kind = "grey" if self.channels == 1 else "colour"
        words = [f"images: {kind}, {fitted} {self.image_size} x {self.image_size}"]
        if self.intensity_range is not None:
            words.append("of more than 8 bits from {:g} (black) to {:g} (white)".format(*self.intensity_range))
        named = ", ".join(f"{index} {name}" for index, name in enumerate(self.mask_class_names))
        masks = f"; masks: {self.masks}{f' ({named})' if named else ''}" if self.masks else ""
        return ", ".join(words) + masks

    def check_images(self, images: ImageSet | None, what: str = "the images") -> None:
        """Refuses images that were brought to their shape or classes otherwise; another intensity range may be right.

        Args:
            images: They, with their own rules; None, and rules that are not known, are not looked at.
            what: What the error calls them.

        Raises:
            ValueError: If the aspect ratio or the channels were treated otherwise, or classes are in another order.
        """
        if images is None:
            return
        other = self if images.rules is None else images.rules
        for name in ("keep_aspect", "channels"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(
                    f"{what} were read with {name}={theirs}, those that are trained on with {name}={ours}; read "
                    "both alike"
                )
        masks, others = self.mask_class_names, other.mask_class_names
        if masks != others and sorted(masks) == sorted(others):
            raise ValueError(
                f"{what} have the mask classes {list(others)}, those that are trained on {list(masks)}; give one order"
            )
        names = tuple(images.class_names)
        if images.labels is not None and names and self.class_names and names != self.class_names:
            raise ValueError(
                f"{what} have the classes {list(names)}, those that are trained on {list(self.class_names)}; read them "
                f"with class_names={list(self.class_names)}"
            )

    def image(self, file: str | Path) -> np.ndarray:
        """Reads an image at its own size: `(H, W, channels)` uint8; errors as `read_image`."""
        return read_image(file, channels=self.channels, intensity_range=self.intensity_range)

    def fit(self, image: np.ndarray, mask: np.ndarray | None = None) -> Fitted:
        """Brings an image `(H, W, channels)` uint8 and its mask of classes `(H, W)` to the size of the network."""
        return (letterbox if self.keep_aspect else stretch)(image, mask, self.image_size)

    def read(self, image: str | Path, mask: str | Path | None = None) -> Fitted:
        """Reads an image, and its mask where the rules know masks, and fits them; errors as `read_pair`."""
        if mask is None or self.mask_values is None:
            picture = read_picture(image, channels=self.channels, intensity_range=self.intensity_range)
            return self.fit(picture.pixels)._replace(spacing=picture.spacing)
        picture, stored = read_pair(image, mask, self.intensity_range, self.mask_values.palette_colours)
        fitted = self.fit(with_channels(picture.pixels, self.channels), self.mask_values.classes(stored, str(mask)))
        return fitted._replace(spacing=picture.spacing)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, as JSON keeps it."""
        config = {name: getattr(self, name) for name in NAMES}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes rules from what `get_config` returned."""
        known = [name for name in NAMES if name in config]
        values: dict[str, Any] = {
            name: tuple(config[name]) if isinstance(config[name], list | tuple) else config[name] for name in known
        }
        return cls(**values)
