"""Codes of an image are held to defined terms, and what has none loses the words of this patient's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import read_header

FIELDS = {
    "ConversionType": "conversion_type",
    "ViewPosition": "view",
    "BodyPartExamined": "body_part",
    "ImageType": "image_type",
    "ConvolutionKernel": "kernel",
    "ManufacturerModelName": "scanner",
    "Manufacturer": "manufacturer",
}
FREE = {"ConvolutionKernel", "ManufacturerModelName", "Manufacturer"}  # PS3.3 defines no terms for these


@pytest.fixture
def read(make_dataset: Callable, write_dataset: Callable) -> Callable:
    """Return the field that a header with some elements gets."""

    def read(keyword: str, value: object, **more: object) -> object:
        ds = make_dataset(np.zeros((4, 4), np.uint8), **{keyword: value}, **more)
        return getattr(read_header(Path(write_dataset(ds)), DecodeLimits())[1], FIELDS[keyword])

    return read


@pytest.mark.parametrize("keyword", FIELDS)
@pytest.mark.parametrize(
    "who", ["PatientName", "OtherPatientNames", "PatientBirthName", "ResponsiblePerson", "NameOfPhysiciansReadingStudy"]
)
def test_a_name_of_this_data_set_passes_nowhere(keyword: str, who: str, read: Callable) -> None:
    value = ["DERIVED", "SECONDARY", "MUELLER"] if keyword == "ImageType" else "MUELLER"
    assert "MUELLER" not in str(read(keyword, value, **{who: "MUELLER^ANNA"}))


@pytest.mark.parametrize("keyword", sorted(FIELDS.keys() - FREE))
def test_a_name_of_anybody_is_not_a_defined_term(keyword: str, read: Callable) -> None:
    value = ["MUELLER", "ANNA", "AXIAL"] if keyword == "ImageType" else "MUELLER"
    assert read(keyword, value) == {"ConversionType": "OT", "ImageType": ("OT", "OT", "AXIAL")}.get(keyword, "")


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("ConversionType", ["WSD", "DI", "SYN"]),
        ("ViewPosition", ["AP", "LL", "MLO", "XCCL", "LATERAL", "AP SUPINE", "OBL LEFT", "LAO"]),
        ("BodyPartExamined", ["HEAD", "CSPINE", "C SPINE", "T12", "ABDOMENPELVIS", "CHEST_ABD_PEL", "WHOLE BODY"]),
        ("BodyPartExamined", ["KOPF", "TETE", "CABEZA", "EXTREMITY", "UP_EXTREMITIES", "HEADNECK", "PROSTATE", "LEG"]),
        ("ImageType", [("ORIGINAL", "PRIMARY", "M_SE", "M"), ("LOCALIZER", "PRIMARY"), ("MIXED", "PRIMARY", "VOLUME")]),
        ("ConvolutionKernel", ["Br40d", "STANDARD", "H31s/3"]),
    ],
)
def test_what_scanners_write_passes(keyword: str, values: list, read: Callable) -> None:
    for value in values:
        assert read(keyword, list(value) if isinstance(value, tuple) else value) == value
