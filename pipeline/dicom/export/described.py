"""Description of a finding that all its exported objects share, and the attributes that they have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

import numpy as np
from pydicom import Dataset, charset
from pydicom.sr.coding import Code

from pipeline.dicom.decode.own_objects import MANUFACTURER, NOT_FOR_DIAGNOSIS, SCHEME
from pipeline.dicom.decode.own_uids import own_uid

ObjectKind = Literal["seg", "pm", "sc", "sr", "ko"]
KINDS: tuple[ObjectKind, ...] = (
    "seg",
    "pm",
    "sc",
    "sr",
    "ko",
)  # in the order of sending: referenced objects come first
MODEL_NAME, SERIAL = "nightread", "none"
FINDING = Code("unusual", SCHEME, "Differs from normal studies")
REGION = Code("unusual-region", SCHEME, "Region that differs from normal")
SCORE = Code("anomaly-score", SCHEME, "Anomaly score, higher is more unusual")
P_VALUE = Code("p-value", SCHEME, "One-sided p-value")
WORDS = Code("how-unusual", SCHEME, "How unusual, in words")
WORTH = Code("guarantee", SCHEME, "What the p-value is worth")
RULE = Code("flagged-by", SCHEME, "Flagged by")
MAP = Code("anomaly-map", SCHEME, "Anomaly map, higher is more unusual")
MAP_PEAK = Code("anomaly-map-peak", SCHEME, "Highest value of the anomaly map")
COVERAGE = Code("coverage", SCHEME, "What the volume covers")
_SERIES = {"seg": (9001, "Nightread: unusual region"), "sc": (9002, "Nightread: picture, not for diagnosis")}
_SERIES |= {"pm": (9005, "Nightread: anomaly map, not for diagnosis")}
_SERIES |= {"sr": (9003, "Nightread: report, not for diagnosis"), "ko": (9004, "Nightread: flagged images")}


@dataclass(frozen=True, slots=True)
class Described:
    """A flagged finding in words and numbers, without identifiers.

    Attributes:
        key: input of the derived UIDs: run, model and finding.
        route: route of the detector.
        score: raw, higher = more anomalous.
        p_value: one-sided, None where the detector is not calibrated.
        words: the p-value in words.
        guarantee: what the p-value is worth.
        rule: the rule that flagged the study.
        model, version: name of the method and route; registered version or start of the SHA-256.
        software: our version.
        at: time of scoring, used as the objects' date so that making them again gives the same bytes.
        pixel_threshold: in-body residuals above it are outlined; None without a threshold.
        pixel_alpha: share of normal pixels above it.
    """

    key: str
    route: str
    score: float
    p_value: float | None
    words: str
    guarantee: str
    rule: str
    model: str
    version: str
    software: str
    at: datetime
    pixel_threshold: float | None = None
    pixel_alpha: float | None = None

    def uid(self, kind: ObjectKind, part: str = "instance") -> str:
        """Return the UID of an object, its series, or another part; equal findings have equal UIDs."""
        return own_uid("push", self.key, kind, part)


@dataclass(frozen=True, slots=True, repr=False)
class SourceImage:
    """One original image of a finding with its data set and heatmap. PHI.

    Attributes:
        dataset: data set of the file; pixels are not needed.
        frame: 0-based.
        heatmap: float [H, W] on the native grid, None where the method has no map or it was not stored.
        spacing_mm: (row, column) distance in the patient; None where the file gives none.
        slice_mm: distance between the slices of its series; None where they are not a regular stack.
    """

    dataset: Dataset
    frame: int = 0
    heatmap: np.ndarray | None = field(default=None)
    spacing_mm: tuple[float, float] | None = None
    slice_mm: float | None = None

    @property
    def several(self) -> bool:
        """Whether the original has several frames."""
        return int(self.dataset.get("NumberOfFrames", 1)) > 1


# pydicom 3.0.2 lacks parts of PS3.3 C.12.1.1.2: Latin alphabet No. 9, and the escape sequences of GB 2312. It leaves
# these to Python's codec, which does not remove them, so they became part of the name.
charset.python_encoding |= {"ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"}
charset.CODES_TO_ENCODINGS[b"\x1b-b"] = "iso8859_15"
charset.ENCODINGS_TO_CODES["iso8859_15"] = b"\x1b-b"
charset.handled_encodings = cast(Any, tuple(name for name in charset.handled_encodings if name != "iso_ir_58"))


def in_unicode(ds: Dataset) -> Dataset:
    """Return the data set with all text in UTF-8, because highdicom cannot handle several character sets at once."""
    ds.decode()
    ds.SpecificCharacterSet = "ISO_IR 192"
    return ds


def decimal(value: float) -> float:
    """Round to what fits into a decimal string (PS3.5 6.2, DS: 16 characters)."""
    return float(f"{value:.8g}")


def series_of(finding: Described, kind: ObjectKind) -> dict[str, Any]:
    """Return the arguments of highdicom about series and instance."""
    number, _ = _SERIES[kind]
    return {
        "series_instance_uid": finding.uid(kind, "series"),
        "series_number": number,
        "sop_instance_uid": finding.uid(kind),
        "instance_number": 1,
    }


def equipment(finding: Described) -> dict[str, Any]:
    """Return the arguments of highdicom about the device that made an image."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": finding.software,
        "device_serial_number": SERIAL,
    }


def finish(ds: Dataset, finding: Described, kind: ObjectKind, source: Dataset) -> Dataset:
    """Make an object reproducible, and copy what highdicom leaves out; nothing is invented.

    BodyPartExamined and Laterality are taken from the source. Laterality is type 2C in a picture or a map (PS3.3
    C.7.3.1): where the source has neither Laterality nor a body part, it is empty.
    """
    day, hour = finding.at.strftime("%Y%m%d"), finding.at.strftime("%H%M%S")
    ds.InstanceCreationDate, ds.InstanceCreationTime = day, hour
    for name, value in (("SeriesDate", day), ("SeriesTime", hour), ("ContentDate", day), ("ContentTime", hour)):
        if name in ds or name.startswith("Content"):
            setattr(ds, name, value)
    _settle(ds, finding, kind, day, hour)
    ds.SeriesDescription = _SERIES[kind][1]
    add_contribution(ds, finding.software, f"{day}{hour}")
    for keyword in ("IssuerOfPatientID", "StudyDescription", "PatientAge", "TimezoneOffsetFromUTC"):
        if keyword in source and keyword not in ds:
            ds[keyword] = source[keyword]
    if kind in ("seg", "pm", "sc"):
        _anatomy(ds, source, kind)
    if "CodingSchemeIdentificationSequence" not in ds and kind in ("seg", "pm", "sr"):
        ds.CodingSchemeIdentificationSequence = [_coding_scheme()]
    return ds


def add_contribution(ds: Dataset, software: str, at: str) -> None:
    """Name Nightread in the Contributing Equipment Sequence (PS3.3 C.12.1), which outlives a rewritten manufacturer.

    Args:
        ds: an object of ours.
        software: our version.
        at: DICOM date and time (DT).
    """
    item, purpose = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = MANUFACTURER, MODEL_NAME, software
    item.ContributionDateTime, item.ContributionDescription = at, NOT_FOR_DIAGNOSIS
    ds.ContributingEquipmentSequence = [*ds.get("ContributingEquipmentSequence", []), item]


def _settle(ds: Dataset, finding: Described, kind: ObjectKind, day: str, hour: str) -> None:
    """Replace the values that highdicom takes from the clock or draws at random."""
    if "DateOfSecondaryCapture" in ds:
        ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = day, hour
    for item in ds.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = f"{day}{hour}"
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in ds.get(keyword, []):
            item.DimensionOrganizationUID = finding.uid(kind, "dimensions")


def _anatomy(ds: Dataset, source: Dataset, kind: ObjectKind) -> None:
    for keyword in ("BodyPartExamined", "Laterality"):
        if keyword in source:
            ds[keyword] = source[keyword]
    if (
        kind in ("pm", "sc")
        and "Laterality" not in source
        and "ImageLaterality" not in source
        and not source.get("BodyPartExamined")
    ):
        ds.Laterality = ""


def _coding_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = SCHEME, "Nightread private codes"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item
