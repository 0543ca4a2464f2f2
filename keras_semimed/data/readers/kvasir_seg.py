"""Reads Kvasir-SEG (colonoscopy polyps, Jha et al. 2020) from its folder or zip; works without TensorFlow.

The layout is `images/<id>.jpg` and `masks/<id>.jpg`. The masks are JPEG files too, so an edge holds many grey values:
above 127 is polyp. A copy resized by others, such as the common one of 256x256 pixels, has the same layout.
"""

from __future__ import annotations

import re

from keras_semimed.data.readers.pairs import Layout, PairSource
from keras_semimed.data.splits.published import published_parts

HOW_TO_GET = (
    "download kvasir-seg.zip (see keras_semimed.data.describe('kvasir_seg')) and give the zip, the extracted "
    "Kvasir-SEG folder or the folder that holds either"
)


class KvasirSegSource(PairSource):
    """The images of Kvasir-SEG, sorted by id; see `PairSource`."""

    TITLE = "Kvasir-SEG"
    HOW_TO_GET = HOW_TO_GET
    LAYOUTS = (Layout("images", "masks", re.compile(r"([^.].*)\.jpe?g")),)

    def is_published(self, name: str) -> bool:
        """Whether an image of this name belongs to the published set."""
        return name in published_parts("pranet")["kvasir_seg"]
