"""Our own objects come back through gateways that rewrite headers, and are refused all the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.luminance import weigh
from pipeline.dicom.decode.own_objects import refuse_statement
from pipeline.dicom.decode.own_pictures import is_stamped, stamp
from pipeline.dicom.decode.own_uids import is_own_uid, own_uid
from pipeline.dicom.decode.read import read_header, read_instance
from pipeline.dicom.export.described import Described
from pipeline.errors import Rejected, RejectionCode
from tests.dicom.export.test_objects import as_file, everything


@pytest.fixture(scope="module")
def make(described: Described, originals: Callable) -> Callable[[], dict[str, Dataset]]:
    """Return a function that reads one finding's objects again."""
    files = {kind: as_file(ds) for kind, ds in everything(described, originals("CT")).items()}
    return lambda: {kind: dcmread(BytesIO(data)) for kind, data in files.items()}


def rename(ds: Dataset) -> None:
    """Do what a gateway or archive does that normalises names."""
    ds.Manufacturer, ds.ManufacturerModelName, ds.SeriesDescription = "GATEWAY INC.", "GW 3000", "OUTSIDE STUDY"
    ds.SoftwareVersions, ds.DeviceSerialNumber, ds.SeriesNumber = "7.1", "42", 5


def without_contributors(ds: Dataset) -> None:
    """Drop what names equipment and coding schemes, too."""
    rename(ds)
    for keyword in ("ContributingEquipmentSequence", "CodingSchemeIdentificationSequence"):
        if keyword in ds:
            del ds[keyword]


def without_texts(ds: Dataset) -> None:
    """Drop the descriptions, too; the UIDs remain."""
    without_contributors(ds)
    for keyword in ("DerivationDescription", "ContentDescription", "ContentLabel"):
        if keyword in ds:
            del ds[keyword]


def with_new_uids(ds: Dataset) -> None:
    """Give the object UIDs of the gateway's own, with the rest of a careful renaming."""
    without_contributors(ds)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()


@pytest.mark.parametrize("rewrite", [rename, without_contributors, without_texts, with_new_uids])
@pytest.mark.parametrize("read", [read_instance, read_header])
def test_a_gateway_hides_none_of_our_objects(make: Callable, tmp_path: Path, rewrite: Callable, read: Callable) -> None:
    for kind, ds in make().items():
        rewrite(ds)
        (tmp_path / kind).write_bytes(as_file(ds))
        with pytest.raises(Rejected) as refused:
            read(tmp_path / kind, DecodeLimits())
        assert (kind, refused.value.code) == (kind, RejectionCode.MADE_HERE)


def test_segmentations_and_maps_of_any_maker_are_not_scans(make: Callable, tmp_path: Path) -> None:
    made = make()
    for kind in ("seg", "pm"):
        foreign = Dataset()
        foreign.update({e.tag: e for e in made[kind] if e.VR != "SQ" and e.keyword != "ContentDescription"})
        rename(foreign)
        foreign.SOPInstanceUID, foreign.SeriesInstanceUID = generate_uid(), generate_uid()
        foreign.DimensionOrganizationType = "3D"
        foreign.file_meta = made[kind].file_meta
        foreign.file_meta.MediaStorageSOPInstanceUID = foreign.SOPInstanceUID
        (tmp_path / kind).write_bytes(as_file(foreign))
        with pytest.raises(Rejected) as refused:
            refuse_statement(read_header(tmp_path / kind, DecodeLimits())[1].sop_class_uid)
        assert (kind, refused.value.code) == (kind, RejectionCode.NOT_AN_IMAGE)
        assert {"seg": "segmentation", "pm": "parametric map"}[kind] in refused.value.sentence


def without_any_name(ds: Dataset) -> None:
    """Replace everything but the pixels, as a full de-identification does."""
    with_new_uids(ds)
    del ds.DerivationDescription
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.{uuid.uuid4().int}"
    ds.InstitutionalDepartmentName, ds.StudyDescription = "Night reads", "Nightreading service"


def test_a_picture_without_any_name_is_known_by_its_stamp(make: Callable, tmp_path: Path) -> None:
    ds = make()["sc"]
    without_any_name(ds)
    (tmp_path / "sc").write_bytes(as_file(ds))
    with pytest.raises(Rejected, match="the stamp in its pixels") as refused:
        read_instance(tmp_path / "sc", DecodeLimits())
    assert refused.value.code == RejectionCode.MADE_HERE


def test_captures_of_others_are_not_ours(make: Callable, tmp_path: Path) -> None:
    """A capture with random UIDs below 2.25, by a department with a similar name; its last row is another."""
    ds = make()["sc"]
    without_any_name(ds)
    pixels = ds.pixel_array.copy()
    pixels[-1, 3] += 1
    ds.PixelData = pixels.tobytes()
    (tmp_path / "sc").write_bytes(as_file(ds))
    assert read_instance(tmp_path / "sc", DecodeLimits()).identity.study_uid == ds.StudyInstanceUID
    assert ds.SOPClassUID == SecondaryCaptureImageStorage


def test_a_stamp_changes_one_row_only() -> None:
    picture = np.full((20, 80, 3), 200, np.uint8)
    stamped = stamp(picture)
    assert np.array_equal(stamped[:-1], picture[:-1]) and np.array_equal(stamped[-1, 64:], picture[-1, 64:])
    assert is_stamped(weigh(stamped)) and not is_stamped(weigh(picture)) and not is_stamped(np.zeros((9, 80)))
    assert np.array_equal(stamp(picture[:, :10]), picture[:, :10])  # too narrow for it


def test_own_uids_certify_themselves() -> None:
    ours = [own_uid("push", number) for number in range(2000)]
    assert len(set(ours)) == 2000 and all(is_own_uid(uid) and len(uid) <= 44 for uid in ours)
    altered = [uid[:-1] + str((int(uid[-1]) + 1) % 10) for uid in ours]
    others = [f"2.25.{uuid.uuid4().int}" for _ in range(20_000)] + [generate_uid(), "", "2.25.", "2.25.x", "1.2.3"]
    assert not any(map(is_own_uid, (*altered, *others, f"2.25.{1 << 128}", f"2.25.{'9' * 39}")))
