"""BUSI: breast ultrasound images with lesion masks and a class each."""

from __future__ import annotations

from keras_semimed.data.readers.builder import SourceBuilder
from keras_semimed.data.readers.busi import HOW_TO_GET, BusiSource


class Builder(SourceBuilder):
    """DatasetBuilder for BUSI; `manual_dir` holds the extracted folder or its zip."""

    RELEASE_NOTES = {"1.0.0": "All 780 images; the union of an image's masks; near-duplicate groups at 0.93."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    SOURCE = BusiSource
    HOMEPAGE = "https://doi.org/10.1016/j.dib.2019.104863"
