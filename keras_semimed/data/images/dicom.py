"""DICOM files of one frame, as ultrasound and endoscopy make them, to pixels; reads with pydicom."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_semimed.data.images.bounds import check_bytes
from keras_semimed.data.images.pixels import Picture, Refusal, check_size
from keras_semimed.text import install

GREY = ("MONOCHROME1", "MONOCHROME2")
# pydicom's decoders turn the last two, which belong to JPEG 2000, into RGB.
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
# Their data unpack without a bound, before the header can be looked at.
_DEFLATED = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.8.1")
_CM = 3
"""Of the units of an ultrasound region's axes."""
_DAMAGED = (AttributeError, KeyError, TypeError, ValueError)
_FRAMES = ("JPEG", "JPEG2000")
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91")


_VRS = b"AE|AS|AT|CS|DA|DS|DT|FD|FL|IS|LO|LT|OB|OW|PN|SH|SL|SQ|SS|ST|TM|UI|UL|UN|US|UT"
_EXPLICIT = re.compile(rb"[\x02\x08]\0.\0(" + _VRS + rb")", re.DOTALL)
_IMPLICIT = re.compile(rb"\x08\0.\0.[\0-\x03]\0\0", re.DOTALL)
"""The first element of a data set: its group, and a short value."""


def is_dicom(content: bytes) -> bool:
    """Tells by the first 132 bytes whether this is the beginning of a DICOM file.

    Either the mark is there that follows the preamble, or there is no preamble, and the first element of the header
    is one that names the kind of its value.
    """
    return content[128:132] == b"DICM" or _EXPLICIT.match(content) is not None


def holds_data_set(content: bytes) -> bool:
    """Tells whether a whole file is DICOM, with its preamble or, if its header describes a picture, without one.

    Raises:
        ImportError: If it begins like DICOM without a preamble and pydicom is missing.
    """
    if content[128:132] == b"DICM":
        return True
    if not (_EXPLICIT.match(content) or _IMPLICIT.match(content)):
        return False
    try:
        header = _pydicom().dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
        return {"Rows", "Columns", "BitsAllocated"} <= set(header.dir())
    except ImportError:
        raise
    except Exception:  # pydicom raises anything on bytes that are no data set
        return False


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(f"reading DICOM needs pydicom: {install('dicom')}") from error
    return pydicom


def read_image(content: bytes) -> Picture:
    """Decodes the frame as it is meant to be shown.

    Rescale slope and intercept, modality and VOI lookup tables, the first window and the photometric interpretation
    are applied. Without a window, black and white are the ends of the stored bits.

    Raises:
        Refusal: If the file holds no picture, several frames or a kind of pixels that is not read.
        ImportError: If pydicom is missing.
    """
    header, pixels = _read(content)
    return _decoded(header, pixels)._replace(spacing=pixel_spacing(header))


def pixel_spacing(header: Any) -> tuple[float, float] | None:
    """Height and width of a pixel in mm, where the header says them.

    `PixelSpacing`; or else `ImagerPixelSpacing`, which is that at the detector; or else the calibration of the regions
    of an ultrasound picture, if all of them are in cm and agree.

    Args:
        header: A pydicom data set.

    Returns:
        The spacing; None where none of the three is there, or what is there is no positive size.
    """
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        with contextlib.suppress(*_DAMAGED):
            if (found := _size(header[name].value)) is not None:
                return found
    with contextlib.suppress(*_DAMAGED):
        regions = {_region_spacing(region) for region in header.get("SequenceOfUltrasoundRegions") or ()}
        return regions.pop() if len(regions) == 1 else None
    return None


def _region_spacing(region: Any) -> tuple[float, float] | None:
    """Height and width of a pixel of an ultrasound region in mm; None where its axes are not lengths."""
    if (region.PhysicalUnitsYDirection, region.PhysicalUnitsXDirection) != (_CM, _CM):
        return None
    # The sign is the direction of the axis; digits beyond six are noise that would keep regions from agreeing.
    return _size(float(f"{10 * abs(delta):.6g}") for delta in (region.PhysicalDeltaY, region.PhysicalDeltaX))


def _size(values: Iterable[Any]) -> tuple[float, float] | None:
    height, width = (float(value) for value in values)
    return (height, width) if 0 < height < math.inf and 0 < width < math.inf else None


def _decoded(header: Any, pixels: np.ndarray) -> Picture:
    """The frame as `read_image` gives it, but for its spacing."""
    lossy = str(header.file_meta.TransferSyntaxUID) in _LOSSY
    if pixels.ndim == 3:
        if pixels.dtype != np.uint8:
            return Picture(pixels, (0, 2**header.BitsStored - 1), lossy=lossy)
        return Picture(pixels, lossy=lossy)
    if header.PhotometricInterpretation == PALETTE:
        from pydicom.pixels import apply_color_lut

        colours = apply_color_lut(pixels, header)
        if colours.dtype == np.uint16:
            if 0 < colours.max() < 4096:
                raise Refusal("its palette's 16-bit colours use less than a sixteenth of their range; save it as RGB")
            colours = (colours >> 8).astype("uint8")
        return Picture(colours[..., :3], lossy=lossy)
    return _shown(pixels, header)._replace(lossy=lossy)


def read_values(content: bytes) -> Picture:
    """Decodes the frame to the values that are stored, `(H, W)`, or to RGB: what a mask is read as.

    Raises:
        Refusal: As in `read_image`.
        ImportError: If pydicom is missing.
    """
    header, pixels = _read(content)
    return Picture(pixels, lossy=str(header.file_meta.TransferSyntaxUID) in _LOSSY)


def _read(content: bytes) -> tuple[Any, np.ndarray]:
    """The data set and its single frame, colour as RGB."""
    pydicom = _pydicom()
    if any(uid in content[:4096] for uid in _DEFLATED):
        raise Refusal("it is a deflated DICOM file, which is not read; save it without that compression")
    header = pydicom.dcmread(io.BytesIO(content), force=content[128:132] != b"DICM")
    if "PixelData" not in header:
        raise Refusal(f"this DICOM file (modality {header.get('Modality', 'unknown')}) holds no pixel data")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise Refusal(f"this DICOM file holds {frames} frames; only single frames are read: export the frame to use")
    if header.PhotometricInterpretation not in (*GREY, *COLOUR, PALETTE):
        raise Refusal(
            f"the photometric interpretation {header.PhotometricInterpretation!r} is not read; "
            f"save it as {GREY[1]} or {COLOUR[0]}"
        )
    check_size(int(header.Columns), int(header.Rows))
    _name_syntax(header)
    _check_pixel_data(header)
    pixels = np.squeeze(pydicom.pixels.pixel_array(header))
    if pixels.shape[:2] != (header.Rows, header.Columns):
        pixels = pixels.reshape(header.Rows, header.Columns, *((3,) if header.SamplesPerPixel == 3 else ()))
    return header, pixels


def _name_syntax(header: Any) -> None:
    """Says how the pixels are stored where the file leaves it out with its preamble: as the header is.

    Raises:
        Refusal: If they are compressed, which the header does not tell.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(header, "file_meta"):
        header.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" in header.file_meta:
        return
    if header["PixelData"].is_undefined_length:
        raise Refusal("it is compressed, and its header does not say how; export it as a DICOM file with its preamble")
    implicit, little = header.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _check_pixel_data(header: Any) -> None:
    """Refuses pixel data that are shorter than what the header claims, or hold more frames, before they are decoded.

    Raises:
        Refusal: Which says what is claimed and what is there.
    """
    claimed = f"its header claims {header.Columns}x{header.Rows} pixels (width x height)"
    if not header.file_meta.TransferSyntaxUID.is_compressed:
        from pydicom.pixels.utils import get_expected_length

        needed, found = int(get_expected_length(header)), len(header.PixelData)
        if found < needed or found >= 2 * needed:
            raise Refusal(f"{claimed} of {needed:,} bytes, and its pixel data hold {found:,}; export it again")
        return
    from pydicom.encaps import generate_frames

    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(frame), formats=_FRAMES) as image:
        if image.size != (header.Columns, header.Rows):
            raise Refusal(f"{claimed}, and its pixel data are {'x'.join(map(str, image.size))}; export it again")
        check_bytes(image, frame)


def _shown(pixels: np.ndarray, header: Any) -> Picture:
    """Grey values as a screen shows them."""
    from pydicom.pixels import apply_modality_lut

    values = np.asarray(apply_modality_lut(pixels, header), "float32")
    if "VOILUTSequence" in header:
        values, white = _looked_up(values, header)
        limits = (0.0, white)
    elif header.get("WindowWidth") is not None:
        values, limits = _windowed(values, header), (0.0, 1.0)
    else:
        limits = _stored_limits(header)
    if not (np.isfinite(limits).all() and limits[0] < limits[1] and np.isfinite(values).all()):
        raise Refusal("its rescale or window values make no grey scale; correct the header")
    if header.PhotometricInterpretation == "MONOCHROME1":
        values = limits[0] + limits[1] - values
    if "VOILUTSequence" in header or header.get("WindowWidth") is not None or header.BitsStored <= 8:
        # The scale is certain, so that a dark image is simply dark.
        scaled = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
        return Picture(np.rint(scaled * 255).astype("uint8"))
    return Picture(values, limits)


def _looked_up(values: np.ndarray, header: Any) -> tuple[np.ndarray, float]:
    """The first VOI lookup table applied, and the white of its entries: of the bits declared, or of those they need.

    pydicom's own counts the indices of a table of 8 bits in 8 bits, so that a larger one wraps.
    """
    table = header.VOILUTSequence[0]
    count, first, bits = (int(value) for value in table.LUTDescriptor)
    count = count or 2**16
    if header.PixelRepresentation == 1 and first >= 2**15:
        first -= 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "uint8" if len(data) < 2 * count else "<u2")
    entries = np.asarray(data, "float32")[:count]
    if len(entries) < count:
        raise Refusal(f"its lookup table declares {count} entries and holds {len(entries)}; correct the header")
    needed = max(8, int(entries.max()).bit_length())
    index = np.clip(values - first, 0, count - 1).astype("int64")
    return entries[index], float(2 ** min(bits, needed) - 1)


def _windowed(values: np.ndarray, header: Any) -> np.ndarray:
    """The first window, to 0..1, by the functions of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if header.get("WindowCenter") is None:
        raise Refusal("it has a WindowWidth and no WindowCenter; correct the header")
    centre, width = (float(np.atleast_1d(header[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction") or "LINEAR"
    if not np.isfinite([centre, width]).all():
        raise Refusal(f"its window is {width:g} wide around {centre:g}, which means nothing; correct the header")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise Refusal(f"its window is of the kind {function!r}, which is not known; correct the header")
    if width < 1 and function == "LINEAR" or width <= 0:
        raise Refusal(f"its window is {width:g} wide, which means nothing; correct the header")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return (values > centre - 0.5).astype("float32")
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _stored_limits(header: Any) -> tuple[float, float]:
    """What the least and the greatest value that the stored bits can hold stand for."""
    from pydicom.pixels import apply_modality_lut

    if "ModalityLUTSequence" in header:
        return 0.0, float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits = int(header.BitsStored)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)
    low, high = sorted(float(value) for value in apply_modality_lut(np.array(ends), header))
    return low, high
