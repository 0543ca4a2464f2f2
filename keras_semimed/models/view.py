"""One look at a half of a training batch: images, targets and where both come from, moved and mixed alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_semimed.layers.cutmix import mix_boxes, neighbour


class Source(NamedTuple):
    """A half of a batch as it came, for another draw.

    Attributes:
        images: `(N, H0, W0, C)` in 0..255.
        masks: `(N, H0, W0)` class indices, 255 = unknown; or None.
        labels: `(N,)` image classes; or None.
        area: `(N, 4)` top, left, bottom, right of what is no padding, in pixels; None: all of it.
        strong: `(N, H0, W0, C)`, a strong view that was made on the host; or None.
    """

    images: Any
    masks: Any = None
    labels: Any = None
    area: Any = None
    strong: Any = None


class View(NamedTuple):
    """A view of some images, S pixels square, with what belongs to it.

    Attributes:
        images: `(N, S, S, C)` float32 in 0..255.
        inside: `(N, S, S)` float32, 1 where a pixel shows its image, 0 in what is padding.
        masks: `(N, S, S)` int32, 255 where unknown or outside; or None.
        labels: `(N,)` int32; or None.
        geometry: what `WeakStrongViews.draw` returned.
        source: as it came.
    """

    images: Any
    inside: Any = None
    masks: Any = None
    labels: Any = None
    geometry: Any = None
    source: Any = None

    @property
    def count(self) -> Any:
        """Number of images."""
        return ops.shape(self.images)[0]

    def mixed(self, other: View, boxes: Any) -> View:
        """With `other` inside the boxes `(N, S, S)`, images, inside and masks alike; without geometry and source."""
        masks = None if self.masks is None or other.masks is None else mix_boxes(self.masks, other.masks, boxes)
        inside = mix_boxes(self.inside, other.inside, boxes)
        return View(mix_boxes(self.images, other.images, boxes), inside, masks, self.labels)

    def rolled(self) -> View:
        """The next image of the batch in the place of each (`neighbour`); without geometry and source."""
        return View(
            *(None if value is None else neighbour(value) for value in self[:4]),  # images to labels
        )

    @staticmethod
    def joined(*views: Any) -> View:
        """Several views as one, without geometry and source; a field that one of them lacks is None."""
        fields = zip(*(view[:4] for view in views), strict=True)
        return View(*(None if any(part is None for part in parts) else ops.concatenate(parts) for parts in fields))


class LazyView:
    """A `View` that is drawn when one of its fields is first used: what is never used moves no random stream.

    Args:
        source: as it came; it can be looked at without drawing.
        draw: makes the view.
    """

    def __init__(self, source: Source, draw: Callable[[Source], View]) -> None:
        self.source = source
        self._draw = draw
        self._view: View | None = None

    @property
    def drawn(self) -> bool:
        """Whether it was used."""
        return self._view is not None

    @property
    def view(self) -> View:
        """The view, drawn now if it was not yet."""
        if self._view is None:
            self._view = self._draw(self.source)
        return self._view

    def __getitem__(self, index: Any) -> Any:
        return self.view[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.view, name)
