"""Kvasir-SEG: colonoscopy images with polyp masks."""

from __future__ import annotations

from keras_semimed.data.readers.builder import SourceBuilder
from keras_semimed.data.readers.kvasir_seg import HOW_TO_GET, KvasirSegSource


class Builder(SourceBuilder):
    """DatasetBuilder for Kvasir-SEG; `manual_dir` holds the extracted folder or its zip."""

    RELEASE_NOTES = {"1.0.0": "All images; polyp where a mask is above 127."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    SOURCE = KvasirSegSource
    HOMEPAGE = "https://doi.org/10.1007/978-3-030-37734-2_37"
