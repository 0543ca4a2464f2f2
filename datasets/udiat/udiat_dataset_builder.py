"""UDIAT: breast ultrasound images with a lesion mask and a class each."""

from __future__ import annotations

from keras_semimed.data.readers.builder import SourceBuilder
from keras_semimed.data.readers.udiat import HOW_TO_GET, UdiatSource


class Builder(SourceBuilder):
    """DatasetBuilder for UDIAT; `manual_dir` holds the extracted folder or its zip."""

    RELEASE_NOTES = {"1.0.0": "All images; lesion where a mask is above 127; near-duplicate groups at 0.93."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    SOURCE = UdiatSource
    HOMEPAGE = "https://doi.org/10.1109/JBHI.2017.2731873"
