"""The allow-list: which attributes pass, in which form, and above all which do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes, LookupTable, RawIdentity
from pipeline.dicom.decode.read import read_header, read_instance
from pipeline.dicom.decode.vocabulary import TOKENS, tokens_of
from pipeline.errors import Rejected, RejectionCode

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
TABLES = st.builds(
    lambda first, values: LookupTable.pack(first, 16, np.array(values)),
    st.integers(-32768, 32767),
    st.lists(st.integers(0, 65535), min_size=1, max_size=50),
)


@given(
    st.builds(
        InstanceAttributes,
        modality=st.sampled_from(["CT", "MR", "CR"]),
        image_type=st.lists(st.sampled_from(["ORIGINAL", "PRIMARY"])).map(tuple),
        age_years=st.none() | st.integers(0, 90),
        pixel_spacing_mm=st.none() | st.tuples(FINITE, FINITE),
        positions=st.lists(st.tuples(FINITE, FINITE, FINITE), max_size=3).map(tuple),
        rescale=st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple),
        modality_lut=st.none() | TABLES,
        voi_luts=st.lists(TABLES, max_size=2).map(tuple),
        burned_in=st.none() | st.booleans(),
        ultrasound_regions=st.lists(st.tuples(*[st.integers(0, 2000)] * 4), max_size=2).map(tuple),
    )
)
def test_json_round_trip(attributes: InstanceAttributes) -> None:
    text = json.dumps(attributes.to_json(), allow_nan=False)
    assert InstanceAttributes.from_json(json.loads(text)) == attributes


def test_a_json_of_another_version_is_read() -> None:
    assert InstanceAttributes.from_json({"modality": "CT", "a_field_of_tomorrow": 1}).modality == "CT"


@pytest.mark.parametrize(("written", "read"), [("1.2.840.5", "1.2.840.5"), ("", ""), ("../x", ""), ("1" * 65, "")])
def test_a_frame_of_reference_is_a_uid_or_nothing(
    written: str, read: str, make_dataset: Callable, write_dataset: Callable
) -> None:
    ds = make_dataset(np.zeros((2, 2), np.int16))
    ds.FrameOfReferenceUID = written
    identity, attributes = read_header(write_dataset(ds), DecodeLimits())
    assert identity.frame_of_reference_uid == read
    assert not written or written not in json.dumps(attributes.to_json())


def test_content_json_leaves_out_the_encoding() -> None:
    one = InstanceAttributes(
        modality="CT", transfer_syntax_uid="1.2.840.10008.1.2.4.90", original_photometric="YBR_RCT"
    )
    other = InstanceAttributes(modality="CT", transfer_syntax_uid="1.2.840.10008.1.2", original_photometric="RGB")
    assert one.content_json() == other.content_json() == {"modality": "CT"}


def test_identity_shows_nothing_of_itself() -> None:
    identity = RawIdentity(**{field.name: "SECRET" for field in fields(RawIdentity)})
    assert "SECRET" not in repr(identity) + str(identity) + f"{identity}"


@pytest.mark.parametrize(
    ("age", "years", "band"),
    [("045Y", 45, "40-59"), ("011M", 0, "0-17"), ("089Y", 89, "80+"), ("090Y", 90, "80+"), ("103Y", 90, "80+"),
     ("018Y", 18, "18-39"), ("060Y", 60, "60-79"), ("", None, ""), ("45", None, "")],
)  # fmt: skip
def test_age(age: str, years: int | None, band: str, make_dataset: Callable, write_dataset: Callable) -> None:
    ds = make_dataset(np.zeros((2, 2), np.int16))
    ds.PatientAge = age
    _, attributes = read_header(write_dataset(ds), DecodeLimits())
    assert (attributes.age_years, attributes.age_band) == (years, band)


def test_free_text_never_enters(make_dataset: Callable, write_dataset: Callable) -> None:
    """A name planted in every text element that is read is returned from none of them."""
    name = "Zeppelinski"
    planted = {
        "PatientName": f"{name}^Anna",
        "PatientID": name,
        "PatientSex": "F",
        "SeriesDescription": f"AX T2 FLAIR {name} contrast",
        "ProtocolName": f"{name} head",
        "ImageComments": name,
        "InstitutionName": name,
        "ManufacturerModelName": f"Scanner of {name}",
        "Manufacturer": f"{name}^Anna",
        "ConvolutionKernel": name,
        "BodyPartExamined": name.upper(),
        "ViewPosition": name.upper(),
        "ImageType": ["ORIGINAL", "PRIMARY", name.upper()],
    }
    ds = make_dataset(np.zeros((2, 2), np.int16), **planted)
    instance = read_instance(write_dataset(ds), DecodeLimits())
    stored = (
        json.dumps(instance.attributes.to_json()) + repr(instance.attributes) + repr(instance.history) + repr(instance)
    )
    assert name.lower() not in stored.lower()
    assert instance.attributes.description == ("AX", "FLAIR", "HEAD", "POST", "T2")
    assert instance.attributes.image_type == ("ORIGINAL", "PRIMARY")
    assert instance.identity.patient_id == name


def test_a_nul_is_left_out_of_texts(make_dataset: Callable, write_dataset: Callable) -> None:
    """PostgreSQL cannot store NUL and SQLite can: without this rule they would accept different files."""
    texts = {"ManufacturerModelName": "a\0b\0", "ImageType": ["ORI\0GINAL", "PRIMARY"], "PatientID": "P7\0\0"}
    instance = read_instance(write_dataset(make_dataset(np.zeros((2, 2), np.int16), **texts)), DecodeLimits())
    assert (instance.attributes.scanner, instance.attributes.image_type) == ("ab", ("ORIGINAL", "PRIMARY"))
    assert instance.identity.patient_id == "P7"
    assert "\\u0000" not in json.dumps(instance.attributes.to_json())


@given(st.text(max_size=80))
def test_tokens_come_from_the_vocabulary_only(text: str) -> None:
    assert set(tokens_of(text)) <= set(TOKENS.values())


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("StudyInstanceUID", None, RejectionCode.MISSING_IDENTITY),
        ("SeriesInstanceUID", None, RejectionCode.MISSING_IDENTITY),
        ("SOPInstanceUID", None, RejectionCode.MISSING_IDENTITY),
        ("Modality", None, RejectionCode.MISSING_ATTRIBUTE),
        ("PhotometricInterpretation", None, RejectionCode.MISSING_ATTRIBUTE),
        ("Columns", None, RejectionCode.MISSING_ATTRIBUTE),
        ("PatientID", "P\0Q", RejectionCode.CORRUPT_HEADER),  # PQ may be somebody else
        ("AccessionNumber", "1\0002", RejectionCode.CORRUPT_HEADER),
        ("BitsStored", 17, RejectionCode.CORRUPT_HEADER),
        ("SamplesPerPixel", 4, RejectionCode.UNSUPPORTED_PIXELS),
        ("PhotometricInterpretation", "CMYK", RejectionCode.UNSUPPORTED_PIXELS),
        ("RescaleSlope", 0, RejectionCode.CORRUPT_HEADER),
        ("ImagePositionPatient", [0, 0], RejectionCode.CORRUPT_HEADER),
    ],
)
def test_missing_or_wrong_files_are_refused(
    keyword: str, value: Any, code: RejectionCode, make_dataset: Callable, write_dataset: Callable
) -> None:
    ds = make_dataset(np.zeros((2, 2), np.int16))
    meta_needs = ds.SOPInstanceUID
    path = write_dataset(ds)
    if value is None:
        delattr(ds, keyword)
    else:
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = meta_needs
    ds.save_as(path)
    with pytest.raises(Rejected) as caught:
        read_instance(path, DecodeLimits())
    assert caught.value.code == code


def test_nothing_is_invented(make_dataset: Callable, write_dataset: Callable) -> None:
    """A file without geometry and rescale gives attributes without them; imager spacing is not patient spacing."""
    ds = make_dataset(np.zeros((2, 2), np.int16), ImagerPixelSpacing=[0.1, 0.2])
    attributes = read_instance(write_dataset(ds), DecodeLimits()).attributes
    assert attributes.pixel_spacing_mm is None
    assert attributes.imager_pixel_spacing_mm == (0.1, 0.2)
    assert attributes.slice_thickness_mm is None
    assert (attributes.positions, attributes.orientation, attributes.rescale) == ((), None, ())


def test_header_alone_agrees_with_the_whole(real_files: dict[str, Path], read_real: Callable) -> None:
    """For grey images the header alone gives the same attributes as a full read."""
    for name in ("pydicom/CT_small.dcm", "pydicom/MR_small_jp2klossless.dcm", "pydicom/MR_small_bigendian.dcm"):
        identity, attributes = read_header(real_files[name], DecodeLimits())
        assert (identity, attributes) == (read_real(name).identity, read_real(name).attributes)
