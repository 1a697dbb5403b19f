"""Our own objects come back through gateways that rewrite headers, and are refused all the same."""

from __future__ import annotations

import timeit
import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.luminance import weigh
from pipeline.dicom.decode.own_objects import refuse_statement
from pipeline.dicom.decode.own_pictures import LEVEL, is_stamped, stamp
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
    """A capture with random UIDs below 2.25, by a department with a similar name; its black is another."""
    ds = make()["sc"]
    without_any_name(ds)
    pixels = ds.pixel_array.copy()
    pixels[pixels == LEVEL] = 0
    ds.PixelData = pixels.tobytes()
    (tmp_path / "sc").write_bytes(as_file(ds))
    assert read_instance(tmp_path / "sc", DecodeLimits()).identity.study_uid == ds.StudyInstanceUID
    assert ds.SOPClassUID == SecondaryCaptureImageStorage


def test_a_picture_that_became_a_radiograph_is_refused(make: Callable, tmp_path: Path) -> None:
    """Another class, grey, 16 bits, inverted and turned: nothing but the stamp is left."""
    ds = make()["sc"]
    without_any_name(ds)
    grey = np.ascontiguousarray(np.rot90(65535 - 257 * weigh(ds.pixel_array).astype(np.uint16)))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.Modality = "MONOCHROME1", 1, "DX"
    ds.Rows, ds.Columns = grey.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelData = 15, grey.tobytes()
    del ds.PlanarConfiguration
    (tmp_path / "dx").write_bytes(as_file(ds))
    with pytest.raises(Rejected, match="the stamp in its pixels"):
        read_instance(tmp_path / "dx", DecodeLimits())


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Black with letters and two grey panes, as a picture of a finding, and stamped."""
    drawn = np.zeros((512, 700, 3), np.uint8)
    drawn[20:40:3, 10:300:2] = 255
    drawn[60:440, 10:340] = drawn[60:440, 360:690] = np.random.default_rng(0).integers(40, 220, (380, 330, 1))
    return stamp(drawn)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda grey: grey,
    "inverted": lambda grey: 255 - grey,
    "8 to 16 bits": lambda grey: grey.astype(np.uint16) * 257,
    "stretched and inverted, signed": lambda grey: (1000 - 13 * grey.astype(np.int16)).astype(np.int16),
    "rescaled": lambda grey: grey.astype(np.float32) * 0.37 - 11,
    "left to right": lambda grey: grey[:, ::-1],
    "upside down": lambda grey: grey[::-1],
    "turned": np.rot90,
    "turned back": lambda grey: np.rot90(grey, 3),
    "transposed": lambda grey: grey.T,
    "padded": lambda grey: np.pad(grey, ((3, 61), (17, 2)), constant_values=255),
    "cropped all round": lambda grey: grey[9:-9, 9:-9],
    "cropped at the top": lambda grey: grey[45:],
    "cropped at the bottom": lambda grey: grey[:-60],
    "cropped at the left": lambda grey: grey[:, 21:],
    "cropped at the right": lambda grey: grey[:, :-21],
    "all at once": lambda grey: np.pad(65535 - 100 * np.rot90(grey[7:, 5:]).astype(np.uint16), 33)[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stamp_outlives(picture: np.ndarray, change: str) -> None:
    unstamped = np.where(picture == LEVEL, 0, picture).astype(np.uint8)
    assert is_stamped(CHANGES[change](weigh(picture)))
    assert not is_stamped(CHANGES[change](weigh(unstamped)))


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("change", ["none", "inverted", "left to right", "turned", "padded", "cropped all round"])
def test_a_stamp_outlives_compression_with_loss(picture: np.ndarray, quality: int, change: str) -> None:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    changed = CHANGES[change](weigh(np.asarray(Image.open(buffer))))
    assert is_stamped(changed, lossy=True)
    assert not is_stamped(np.where(changed > changed.mean(), 200, 7), lossy=True)


@pytest.mark.parametrize("declared", ["by the attribute", "by the transfer syntax"])
def test_a_capture_with_loss_is_searched_with_tolerance(
    make: Callable, tmp_path: Path, picture: np.ndarray, declared: str
) -> None:
    ds, buffer = make()["sc"], BytesIO()
    without_any_name(ds)
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    ds.LossyImageCompression = None
    if declared == "by the attribute":
        ds.PixelData, ds.LossyImageCompression = np.asarray(Image.open(buffer)).tobytes(), "01"
    else:
        ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation = JPEGBaseline8Bit, "YBR_FULL_422"
        ds.PixelData = encapsulate([buffer.getvalue()])
        ds["PixelData"].is_undefined_length = True
    ds.Rows, ds.Columns = picture.shape[:2]
    (tmp_path / "sc").write_bytes(as_file(ds))
    with pytest.raises(Rejected, match="the stamp in its pixels"):
        read_instance(tmp_path / "sc", DecodeLimits())


def test_a_stamp_stands_on_black_and_in_two_corners_only(picture: np.ndarray) -> None:
    white = stamp(np.full((300, 400, 3), 200, np.uint8))
    changed = (white != 200).any(axis=-1)
    assert changed[-8:, :256].all() and changed[:8, -256:].all() and changed.sum() == 2 * 8 * 256
    assert (picture[60:440, 10:340] >= 40).all() and picture.max() == 255
    assert not is_stamped(np.zeros((9, 80))) and not is_stamped(np.zeros((1, 1)), lossy=True)
    small = stamp(np.zeros((40, 64, 3), np.uint8))
    assert is_stamped(255 - small[3:-1, :, 0].T) and not is_stamped(small[:, 1:, 0])
    assert np.array_equal(stamp(white[:, :50]), white[:, :50])  # too narrow for it


def test_the_search_costs_an_ordinary_image_almost_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 4096, (512, 512), np.uint16)
    seconds = min(timeit.repeat(lambda: is_stamped(image), number=1, repeat=50))
    assert seconds < 2e-3, "0.07 ms on an idle machine; the bound leaves room for a busy one"


def test_own_uids_certify_themselves() -> None:
    ours = [own_uid("push", number) for number in range(2000)]
    assert len(set(ours)) == 2000 and all(is_own_uid(uid) and len(uid) <= 44 for uid in ours)
    altered = [uid[:-1] + str((int(uid[-1]) + 1) % 10) for uid in ours]
    others = [f"2.25.{uuid.uuid4().int}" for _ in range(20_000)] + [generate_uid(), "", "2.25.", "2.25.x", "1.2.3"]
    assert not any(map(is_own_uid, (*altered, *others, f"2.25.{1 << 128}", f"2.25.{'9' * 39}")))
