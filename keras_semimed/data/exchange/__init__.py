"""Annotations that come from annotation tools and go there: COCO, CVAT, LabelMe, Label Studio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_semimed.lazy import lazy

if TYPE_CHECKING:
    from keras_semimed.data.exchange.exporting import export_annotations
    from keras_semimed.data.exchange.formats import read_export
    from keras_semimed.data.exchange.importing import import_annotations

__all__ = ["export_annotations", "import_annotations", "read_export"]

__getattr__ = lazy(
    __name__,
    {"export_annotations": "exporting", "import_annotations": "importing", "read_export": "formats"},
)
