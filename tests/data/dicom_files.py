"""DICOM files made in memory."""

from __future__ import annotations

import io

import numpy as np


def dicom(pixels, interpretation="MONOCHROME2", syntax="1.2.840.10008.1.2.1", encoded=None, **tags):
    """The bytes of a DICOM file with `pixels` `(H, W)` or `(H, W, 3)`, uint8 or uint16."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, UltrasoundImageStorage, generate_uid

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = UltrasoundImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    header.PhotometricInterpretation = interpretation
    if pixels.ndim == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.PixelRepresentation = 0
    for name, value in tags.items():
        setattr(header, name, value)
    header.HighBit = header.BitsStored - 1
    content = pixels.tobytes() if encoded is None else encapsulate([encoded])
    header.PixelData = content + bytes(len(content) % 2)
    header["PixelData"].VR = "OB" if encoded is not None or pixels.dtype == np.uint8 else "OW"
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    return file.getvalue()
