"""Extract from a data set what is kept: `RawIdentity` for the crosswalk, `InstanceAttributes` for everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.fields import (
    MODEL_NAME,
    read_code,
    read_first_item,
    read_identifier,
    read_integer,
    read_items,
    read_number,
    read_optional_text,
    read_text,
    read_texts,
    require_integer,
)
from pipeline.dicom.decode.frames import frame_attributes, read_positive_pair
from pipeline.dicom.decode.vocabulary import TOKENS, VIEW_CODES, tokens_of
from pipeline.errors import Rejected, RejectionCode

# Attributes may not contain any word of these elements: a name typed into a code field is removed.
_PERSONAL = ("PatientName", "PatientID", "ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName")
_WORD = re.compile(r"[^A-Z0-9]+")
MAX_FRAMES = 2**31 - 1
OLDEST_NAMED_AGE = 89


def read_identity(ds: Dataset) -> RawIdentity:
    """Return the identifiers of the data set.

    Raises:
        Rejected: MISSING_IDENTITY, one of the three UIDs is absent; CORRUPT_HEADER, an identifier is not text.
    """
    uids = {
        name: read_identifier(ds, name, required=True)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    missing = [name for name, value in uids.items() if not value]
    if missing:
        raise Rejected(
            RejectionCode.MISSING_IDENTITY,
            f"{', '.join(missing)} missing, so the image belongs to no series. Export it again from its source.",
        )
    date = read_optional_text(ds, "StudyDate").replace(".", "")
    return RawIdentity(
        issuer=read_identifier(ds, "IssuerOfPatientID"),
        patient_id=read_identifier(ds, "PatientID"),
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        sop_uid=uids["SOPInstanceUID"],
        accession_number=read_identifier(ds, "AccessionNumber"),
        study_date=date if re.fullmatch(r"\d{8}", date) else "",
    )


def read_attributes(ds: Dataset, transfer_syntax_uid: str) -> InstanceAttributes:
    """Return the allow-listed attributes of an image; the photometric fields are as in the file.

    Raises:
        Rejected: MISSING_ATTRIBUTE or CORRUPT_HEADER.
    """
    declared = read_integer(ds, "NumberOfFrames")
    frames = 1 if declared is None else declared
    if not 1 <= frames <= MAX_FRAMES:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            f"NumberOfFrames is {frames}; it must be at least 1. Correct it at the source and send the file again.",
        )
    return InstanceAttributes(
        transfer_syntax_uid=transfer_syntax_uid,
        frames=frames,
        **_pixel_attributes(ds),
        **_context(ds),
        **_subject(ds),
        **frame_attributes(ds, frames),
    )


def _pixel_attributes(ds: Dataset) -> dict[str, Any]:
    photometric = read_text(ds, "PhotometricInterpretation").upper()
    if not photometric:
        raise Rejected(
            RejectionCode.MISSING_ATTRIBUTE,
            "PhotometricInterpretation is missing, so it is unknown which values are bright. Send the image again.",
        )
    allocated = require_integer(ds, "BitsAllocated", 1, 64)
    has_integers = "BitsStored" in ds
    signed = 1 if has_integers else 0
    return {
        "rows": require_integer(ds, "Rows", 1, 65535),
        "columns": require_integer(ds, "Columns", 1, 65535),
        "bits_allocated": allocated,
        "bits_stored": require_integer(ds, "BitsStored", 1, allocated) if has_integers else allocated,
        "pixel_representation": require_integer(ds, "PixelRepresentation", 0, 1) if has_integers else signed,
        "photometric": photometric,
        "original_photometric": photometric,
        "lossy": read_text(ds, "LossyImageCompression") == "01",
        **_padding(ds, allocated),
    }


def _padding(ds: Dataset, allocated: int) -> dict[str, Any]:
    """Return padding value and range limit as stored values.

    Their VR is US or SS and some devices choose the wrong one, so the sign is corrected to that of the pixels.
    """
    padding: dict[str, Any] = {}
    signed = read_integer(ds, "PixelRepresentation") == 1
    keywords = {"padding_value": "PixelPaddingValue", "padding_range_limit": "PixelPaddingRangeLimit"}
    for name, keyword in keywords.items():
        value = read_integer(ds, keyword)
        if value is not None and signed and value >= 2 ** (allocated - 1):
            value -= 2**allocated
        elif value is not None and not signed and value < 0:
            value += 2**allocated
        padding[name] = value
    return padding


def _context(ds: Dataset) -> dict[str, Any]:
    modality = read_code(ds, "Modality")
    if not modality:
        raise Rejected(
            RejectionCode.MISSING_ATTRIBUTE,
            "Modality is missing, so it is unknown what the values mean. Send the image again.",
        )
    personal = _personal_words(ds)
    burned_in = read_code(ds, "BurnedInAnnotation")
    return {
        "sop_class_uid": read_text(ds, "SOPClassUID"),
        "modality": modality,
        "body_part": _clean(_body_part(ds), personal),
        "view": _clean(_view(ds), personal),
        "laterality": _laterality(ds),
        "image_type": tuple(filter(None, (_clean(part.upper(), personal) for part in read_texts(ds, "ImageType")))),
        "description": tokens_of(*(read_optional_text(ds, name) for name in ("SeriesDescription", "ProtocolName"))),
        "manufacturer": _model(ds, "Manufacturer", personal),
        "scanner": _model(ds, "ManufacturerModelName", personal),
        "kernel": _model(ds, "ConvolutionKernel", personal),
        "conversion_type": read_code(ds, "ConversionType"),
        "instance_number": read_integer(ds, "InstanceNumber"),
        "imager_pixel_spacing_mm": read_positive_pair(ds, "ImagerPixelSpacing"),
        "gantry_tilt_degrees": read_number(ds, "GantryDetectorTilt"),
        "presentation_lut_shape": read_code(ds, "PresentationLUTShape"),
        "burned_in": {"YES": True, "NO": False}.get(burned_in),
        "ultrasound_regions": tuple(_regions(ds)) if modality == "US" else (),
    }


def _regions(ds: Dataset) -> Iterator[tuple[int, int, int, int]]:
    """Yield the corners of the regions that show tissue in two dimensions (PS3.3 C.8.5.5), not of traces."""
    for item in read_items(ds, "SequenceOfUltrasoundRegions"):
        kind = read_integer(item, "RegionSpatialFormat"), read_integer(item, "RegionDataType")
        ends = [read_integer(item, f"RegionLocation{end}") for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if kind == (1, 1) and None not in ends:
            x0, y0, x1, y1 = (int(end or 0) for end in ends)
            yield x0, y0, x1, y1


def _subject(ds: Dataset) -> dict[str, Any]:
    sex = read_code(ds, "PatientSex")
    age = re.fullmatch(r"(\d{3})([DWMY])", read_optional_text(ds, "PatientAge").upper())
    years = None
    if age:
        years = int(int(age[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[age[2]])
        years = years if years <= OLDEST_NAMED_AGE else OLDEST_NAMED_AGE + 1
    return {"sex": sex if sex in ("F", "M", "O") else "", "age_years": years}


def _personal_words(ds: Dataset) -> frozenset[str]:
    joined = " ".join(read_optional_text(ds, name) for name in _PERSONAL).upper()
    return frozenset(
        word for word in _WORD.split(joined) if len(word) > 2 and word not in TOKENS
    )  # names such as Head stay allowed


def _clean(value: str, personal: frozenset[str]) -> str:
    return "" if personal.intersection(_WORD.split(value.upper())) else value


def _model(ds: Dataset, keyword: str, personal: frozenset[str]) -> str:
    value = read_optional_text(ds, keyword).replace("\\", "/")
    return _clean(value, personal) if MODEL_NAME.fullmatch(value) else ""


def _body_part(ds: Dataset) -> str:
    return read_code(ds, "BodyPartExamined")


def _view(ds: Dataset) -> str:
    item = read_first_item(ds, "ViewCodeSequence")
    return read_code(ds, "ViewPosition") or VIEW_CODES.get(read_text(item, "CodeValue") if item is not None else "", "")


def _laterality(ds: Dataset) -> str:
    value = read_code(ds, "ImageLaterality") or read_code(ds, "Laterality")
    return value if value in ("L", "R", "B", "U") else ""
