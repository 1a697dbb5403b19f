"""Extract from a data set what is kept: `RawIdentity` for the crosswalk, `InstanceAttributes` for everything else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset

from pipeline.dicom.decode.attributes import NAN_PADDING, InstanceAttributes, RawIdentity
from pipeline.dicom.decode.content import read_content
from pipeline.dicom.decode.fields import (
    has,
    read_code,
    read_identifier,
    read_integer,
    read_items,
    read_number,
    read_optional_text,
    read_spare_number,
    read_text,
    read_value,
    require_integer,
)
from pipeline.dicom.decode.frames import frame_attributes, read_spare_pair
from pipeline.dicom.decode.persons import personal_words
from pipeline.dicom.decode.stack_facts import StackFacts, read_stack_facts
from pipeline.dicom.decode.terms import (
    read_body_part,
    read_conversion,
    read_image_type,
    read_laterality,
    read_model,
    read_view,
)
from pipeline.dicom.decode.vendors import LOSSY_SYNTAXES, TYPE_TOKENS, Assumed
from pipeline.dicom.decode.vocabulary import LUT_SHAPES, MODALITIES, OF_THE_SERIES, OTHER, tokens_of
from pipeline.dicom.decode.waveform import has_waveform, waveform_attributes
from pipeline.errors import Rejected, RejectionCode

MAX_FRAMES = 2**31 - 1
OLDEST_NAMED_AGE = 89
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
LONGEST_UID = 64


def read_identity(ds: Dataset) -> RawIdentity:
    """Return the identifiers of the data set.

    Raises:
        Rejected: MISSING_IDENTITY, one of the three UIDs is absent; INVALID_UID, one is not a UID; CORRUPT_HEADER, an
            identifier is not text.
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
    require_valid_uids(uids)
    date = read_optional_text(ds, "StudyDate").replace(".", "")
    return RawIdentity(
        issuer=read_identifier(ds, "IssuerOfPatientID"),
        patient_id=read_identifier(ds, "PatientID"),
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        sop_uid=uids["SOPInstanceUID"],
        accession_number=read_identifier(ds, "AccessionNumber"),
        study_date=date if re.fullmatch(r"\d{8}", date) else "",
        frame_of_reference_uid=_spare_uid(ds, "FrameOfReferenceUID"),
    )


def _spare_uid(ds: Dataset, keyword: str) -> str:
    """Return a UID that an image can do without, "" where it is absent or malformed."""
    value = read_identifier(ds, keyword)
    return value if _is_uid(value) else ""


def _is_uid(value: str) -> bool:
    return bool(_UID.fullmatch(value)) and len(value) <= LONGEST_UID


def require_valid_uids(uids: Mapping[str, str]) -> None:
    """Refuse values that are not UIDs (PS3.5 9.1), by name; leading zeros of a component, which devices write, pass.

    Raises:
        Rejected: INVALID_UID.
    """
    invalid = [name for name, value in uids.items() if not _is_uid(value)]
    if invalid:
        raise Rejected(
            RejectionCode.INVALID_UID,
            f"{', '.join(invalid)} is not a UID: numbers with points between them, at most {LONGEST_UID} characters. "
            "Correct it at its source and send the object again.",
        )


def read_attributes(ds: Dataset, transfer_syntax_uid: str) -> InstanceAttributes:
    """Return the allow-listed attributes of an image or a signal; the photometric fields are as in the file.

    Raises:
        Rejected: MISSING_ATTRIBUTE or CORRUPT_HEADER.
    """
    signal, groups, left_out = waveform_attributes(ds) if has_waveform(ds) else ({}, None, [])
    declared = read_integer(ds, "NumberOfFrames") if groups is None else groups
    frames = 1 if declared is None else declared
    if not 1 <= frames <= MAX_FRAMES:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            f"NumberOfFrames is {frames:.10g}; it must lie in 1 to {MAX_FRAMES}. Correct it at its source.",
        )
    ignored: list[str] = []
    by_frame, assumed = frame_attributes(ds, frames, ignored)
    personal = personal_words(ds)
    facts = read_stack_facts(ds, frames, personal)
    placed = bool(by_frame["positions"]) and bool(by_frame["orientation"] or by_frame["orientations"])
    attributes = InstanceAttributes(
        transfer_syntax_uid=transfer_syntax_uid,
        frames=frames,
        instance_number=_instance_number(ds, placed, ignored),
        **{**_context(ds, facts, ignored, personal), **(signal or _pixel_attributes(ds, transfer_syntax_uid))},
        **_subject(ds),
        stack_facts=facts,
        **by_frame,
    )
    attributes = attributes.assuming(*assumed, *left_out, *(f"{Assumed.IGNORED}:{keyword}" for keyword in ignored))
    return replace(attributes, content=str(read_content(ds, attributes)))


def _instance_number(ds: Dataset, placed: bool, ignored: list[str]) -> int | None:
    """Return the instance number; it only orders images without a position, so only those need a valid one."""
    number = (
        read_spare_number(ds, "InstanceNumber", ignored, whole=True) if placed else read_integer(ds, "InstanceNumber")
    )
    return None if number is None else int(number)


def _pixel_attributes(ds: Dataset, syntax: str) -> dict[str, Any]:
    photometric = read_text(ds, "PhotometricInterpretation").upper()
    if not photometric:
        raise Rejected(
            RejectionCode.MISSING_ATTRIBUTE,
            "PhotometricInterpretation is missing, so it is unknown which values are bright. Export it complete.",
        )
    allocated = require_integer(ds, "BitsAllocated", 1, 64)
    has_integers = has(ds, "BitsStored")
    signed = 1 if has_integers else 0
    return {
        "rows": require_integer(ds, "Rows", 1, 65535),
        "columns": require_integer(ds, "Columns", 1, 65535),
        "bits_allocated": allocated,
        "bits_stored": require_integer(ds, "BitsStored", 1, allocated) if has_integers else allocated,
        "pixel_representation": require_integer(ds, "PixelRepresentation", 0, 1) if has_integers else signed,
        "photometric": photometric,
        "original_photometric": photometric,
        "lossy": read_text(ds, "LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES,
        **_padding(ds, allocated),
    }


def _padding(ds: Dataset, allocated: int) -> dict[str, Any]:
    """Return padding value and range limit as stored values: integers, or floats for (Double) Float Pixel Data.

    Their VR is US or SS and some devices choose the wrong one, so the sign is corrected to that of the pixels.
    """
    padding: dict[str, Any] = {}
    for kind in ("Float", "DoubleFloat"):
        if has(ds, f"{kind}PixelPaddingValue"):
            return _float_padding(ds, f"{kind}PixelPadding")
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


def _float_padding(ds: Dataset, keyword: str) -> dict[str, Any]:
    """Return padding of float pixels; padding with NaN is stored as `NAN_PADDING`, since JSON has no NaN."""
    value = read_value(ds, f"{keyword}Value")
    if isinstance(value, float) and math.isnan(value):
        return {"padding_value": NAN_PADDING, "padding_range_limit": None}
    return {
        "padding_value": read_number(ds, f"{keyword}Value"),
        "padding_range_limit": read_number(ds, f"{keyword}RangeLimit"),
    }


def _context(ds: Dataset, facts: StackFacts, ignored: list[str], personal: frozenset[str]) -> dict[str, Any]:
    modality = read_code(ds, "Modality")
    if not modality:
        raise Rejected(
            RejectionCode.MISSING_ATTRIBUTE,
            "Modality is missing, so it is unknown what the values mean. Export the complete image.",
        )
    burned_in = read_code(ds, "BurnedInAnnotation")
    sop_class = read_text(ds, "SOPClassUID")
    require_valid_uids({"SOPClassUID": sop_class} if sop_class else {})
    return {
        "sop_class_uid": sop_class,
        "modality": modality if modality in MODALITIES else OTHER,
        "body_part": read_body_part(ds, personal),
        "view": read_view(ds, personal),
        "laterality": read_laterality(ds),
        "image_type": read_image_type(ds, personal),
        "description": _description(ds, modality, facts),
        "manufacturer": read_model(ds, "Manufacturer", personal),
        "scanner": read_model(ds, "ManufacturerModelName", personal),
        "kernel": read_model(ds, "ConvolutionKernel", personal),
        "conversion_type": read_conversion(ds),
        "imager_pixel_spacing_mm": read_spare_pair(ds, "ImagerPixelSpacing", ignored),
        "gantry_tilt_degrees": read_spare_number(ds, "GantryDetectorTilt", ignored, within=(-90.0, 90.0)),
        "presentation_lut_shape": shape if (shape := read_code(ds, "PresentationLUTShape")) in LUT_SHAPES else "",
        "burned_in": {"YES": True, "NO": False}.get(burned_in),
        "ultrasound_regions": tuple(_regions(ds)) if modality == "US" else (),
    }


def _description(ds: Dataset, modality: str, facts: StackFacts) -> tuple[str, ...]:
    """Return the tokens of the descriptions; for MR also the weighting that other elements name (`vendors`)."""
    series, protocol = (read_optional_text(ds, name) for name in ("SeriesDescription", "ProtocolName"))
    tokens = set(tokens_of(series)) | set(_of_protocol(ds, modality, series, protocol))
    if modality == "MR":
        tokens |= {"MAP"} if _is_adc(series, protocol) else set()
        types = (value.upper().replace(" ", "_") for value in read_optional_text(ds, "ImageType").split("\\"))
        tokens |= {TYPE_TOKENS[value] for value in types if value in TYPE_TOKENS}
        weighted = any(isinstance(b, float) and b > 0 for b in dict(facts).get("DiffusionBValue", ()))
        tokens |= {"DWI"} if weighted else set()
    return tuple(sorted(tokens))


def _of_protocol(ds: Dataset, modality: str, series: str, protocol: str) -> set[str]:
    """Return the tokens of the protocol; it decides what the pixels are only where it alone names an MR series.

    CT systems and GE write the name of the whole examination there ("LIVER ELASTOGRAPHY").
    """
    tokens = set(tokens_of(protocol))
    names_examination = modality != "MR" or read_optional_text(ds, "Manufacturer").upper().startswith("GE")
    return tokens - OF_THE_SERIES if series.strip() or names_examination else tokens


def _is_adc(series: str, protocol: str) -> bool:
    """Return whether the series is named for its ADC, and not as its protocol, whose weighted images bear that too."""
    own = set(tokens_of(series))
    if "ADC" not in own:
        return False
    last = re.split(r"[^A-Z0-9]+", series.upper().strip())[-1]
    shared = tokens_of(protocol)
    return "DWI" not in own or (last == "ADC" and "DWI" in shared and "ADC" not in shared)


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
