"""CVC-ClinicDB: colonoscopy frames with polyp masks and the sequence each comes from."""

from __future__ import annotations

from keras_semimed.data.readers.builder import SourceBuilder
from keras_semimed.data.readers.cvc_clinicdb import HOW_TO_GET, CvcClinicDbSource


class Builder(SourceBuilder):
    """DatasetBuilder for CVC-ClinicDB; `manual_dir` holds the extracted folder or its zip."""

    RELEASE_NOTES = {"1.0.0": "All frames; polyp where a mask is above 127; sequences as groups."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_GET
    SOURCE = CvcClinicDbSource
    HOMEPAGE = "https://doi.org/10.1016/j.compmedimag.2015.02.007"
