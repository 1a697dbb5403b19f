"""The objects of a finding: valid, on the original's geometry, and identical whenever they are made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ParametricMapStorage

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.export.capture import secondary_capture
from pipeline.dicom.export.described import Described, SourceImage, in_unicode
from pipeline.dicom.export.key_objects import key_objects
from pipeline.dicom.export.measured_regions import measured_regions
from pipeline.dicom.export.parametric_map import parametric_map
from pipeline.dicom.export.segmentation import segmentation
from pipeline.dicom.export.structured_report import structured_report
from pipeline.errors import Rejected, RejectionCode

PICTURE = np.arange(60 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 3)


def everything(finding: Described, images: list[SourceImage]) -> dict[str, Dataset]:
    made = {"seg": segmentation(finding, images), "sc": secondary_capture(finding, PICTURE, images[0])}
    if "FrameOfReferenceUID" in images[0].dataset:
        made["pm"] = parametric_map(finding, images)
    made["sr"] = structured_report(finding, images, made["seg"])
    return {**made, "ko": key_objects(finding, images, list(made.values()))}


def as_file(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX"])
def test_every_object_is_valid(
    modality: str, described: Described, originals: Callable, dciodvfy: Callable, tmp_path: Path
) -> None:
    for kind, ds in everything(described, originals(modality)).items():
        path = tmp_path / f"{kind}.dcm"
        path.write_bytes(as_file(ds))
        assert (kind, dciodvfy(path)) == (kind, [])


def test_objects_join_the_study_under_the_real_identity(described: Described, originals: Callable) -> None:
    images = originals("CT")
    source = images[0].dataset
    for ds in everything(described, images).values():
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
            assert str(ds[keyword].value) == str(source[keyword].value)
        assert ds.SeriesInstanceUID != source.SeriesInstanceUID
        assert ds.SeriesDescription.startswith("Nightread: ")


def test_our_own_objects_cannot_come_back(described: Described, originals: Callable, tmp_path: Path) -> None:
    for kind, ds in everything(described, originals("CT")).items():
        (tmp_path / kind).write_bytes(as_file(ds))
        with pytest.raises(Rejected) as refused:
            read_instance(tmp_path / kind, DecodeLimits())
        assert (kind, refused.value.code) == (kind, RejectionCode.MADE_HERE)


def test_the_same_finding_makes_the_same_bytes(described: Described, originals: Callable) -> None:
    images = originals("MR")
    first, second = everything(described, images), everything(described, images)
    assert {k: as_file(ds) for k, ds in first.items()} == {k: as_file(ds) for k, ds in second.items()}
    other = everything(replace(described, key="score-1/abc/2"), images)
    assert all(first[kind].SOPInstanceUID != other[kind].SOPInstanceUID for kind in first)


def test_the_segmentation_covers_pixels_above_the_threshold(described: Described, originals: Callable) -> None:
    images = originals("CT")
    images[1].heatmap[:] = 0  # nothing there: an empty frame is left out
    seg = dcmread(BytesIO(as_file(segmentation(described, images))))
    frames = seg.pixel_array
    assert frames.shape == (2, *images[0].heatmap.shape)
    sources = [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for item in seg.PerFrameFunctionalGroupsSequence
    ]
    by_uid = {image.dataset.SOPInstanceUID: image for image in images}
    assert set(sources) == {images[0].dataset.SOPInstanceUID, images[2].dataset.SOPInstanceUID}
    for frame, groups, uid in zip(frames, seg.PerFrameFunctionalGroupsSequence, sources, strict=True):
        assert np.array_equal(frame > 0, by_uid[uid].heatmap > 0.5)
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        assert list(position) == list(by_uid[uid].dataset.ImagePositionPatient)


def test_without_threshold_map_or_excess_there_is_no_segmentation(described: Described, originals: Callable) -> None:
    images = originals("CT")
    assert segmentation(replace(described, pixel_threshold=None), images) is None
    assert segmentation(replace(described, pixel_threshold=2.0), images) is None
    assert segmentation(described, [SourceImage(image.dataset) for image in images]) is None


def test_nothing_is_invented(described: Described, originals: Callable, dciodvfy: Callable, tmp_path: Path) -> None:
    images = originals("CT")
    for image in images:
        del image.dataset.BodyPartExamined
    made = everything(described, images)
    assert all("BodyPartExamined" not in ds for ds in made.values())
    assert made["sc"].Laterality == made["pm"].Laterality == "" and "Laterality" not in made["seg"]
    for kind in ("seg", "pm", "sc"):
        (tmp_path / kind).write_bytes(as_file(made[kind]))
        assert dciodvfy(tmp_path / kind) == []
    images[0].dataset.BodyPartExamined, images[0].dataset.Laterality = "KNEE", "L"
    copied = secondary_capture(described, PICTURE, images[0])
    assert (copied.BodyPartExamined, copied.Laterality) == ("KNEE", "L")


def test_the_map_keeps_values_geometry_and_research_use(described: Described, originals: Callable) -> None:
    images = originals("CT")
    for number, image in enumerate(images, start=1):
        image.heatmap[:] *= np.float16(0.1) * number
    pm = dcmread(BytesIO(as_file(parametric_map(described, images))))
    assert (pm.SOPClassUID, pm.ContentQualification, pm.NumberOfFrames) == (ParametricMapStorage, "RESEARCH", 3)
    by_uid = {image.dataset.SOPInstanceUID: image for image in images}
    for values, groups in zip(pm.pixel_array, pm.PerFrameFunctionalGroupsSequence, strict=True):
        source = by_uid.pop(groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert values.dtype == np.float32 and np.array_equal(values, source.heatmap)
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        assert list(position) == list(source.dataset.ImagePositionPatient)
    shared = pm.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == images[0].dataset.ImageOrientationPatient
    real = shared.RealWorldValueMappingSequence[0]
    assert (real.RealWorldValueSlope, real.RealWorldValueIntercept) == (1, 0)
    assert real.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert not by_uid


def test_a_radiograph_without_frame_of_reference_has_no_map(described: Described, originals: Callable) -> None:
    images = originals("CR")
    assert "FrameOfReferenceUID" not in images[0].dataset
    assert parametric_map(described, images) is None
    assert parametric_map(described, [SourceImage(originals("CT")[0].dataset)]) is None


def measured(group: Any) -> dict[str, float]:
    return {item.name.meaning: item.value for item in group.get_measurements()}


def test_the_report_measures_and_references_the_segmentation(
    described: Described, originals: Callable, tmp_path: Path
) -> None:
    images = [replace(image, spacing_mm=(0.5, 0.7), slice_mm=2.5) for image in originals("CT")]
    images[1].heatmap[:] = 0  # not outlined
    images[2].heatmap[25:30, 20:40] = 0  # half of its 10 x 20 pixels are
    seg = segmentation(described, images)
    (tmp_path / "sr").write_bytes(as_file(structured_report(described, images, seg)))
    report = hd.sr.srread(tmp_path / "sr").content
    (volume,) = report.get_volumetric_roi_measurement_groups()
    assert measured(volume) == {"Volume": pytest.approx((200 + 100) * 0.5 * 0.7 * 2.5)}
    assert volume.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert volume.tracking_uid == seg.SegmentSequence[0].TrackingUID
    planar = report.get_planar_roi_measurement_groups()
    assert sorted(measured(group)["Area"] for group in planar) == pytest.approx([35.0, 70.0])
    (whole,) = report.get_image_measurement_groups()
    assert measured(whole)["Anomaly score, higher is more unusual"] == 1.53125
    frames = {int(one.DimensionIndexValues[-1]): number for number, one in enumerate(frame_contents(seg), start=1)}
    numbers = [g.referenced_segmentation_frame.referenced_frame_numbers[0] for g in planar]
    assert sorted(numbers) == sorted(frames.values()) == [1, 2]


def frame_contents(seg: Dataset) -> list[Dataset]:
    return [groups.FrameContentSequence[0] for groups in seg.PerFrameFunctionalGroupsSequence]


@pytest.mark.parametrize(
    ("spacing", "depth", "outlined", "areas", "volumes"),
    [((0.5, 0.5), None, 3, 3, 0), (None, 2.5, 3, 0, 0), ((0.5, 0.5), 2.5, 1, 1, 0), ((0.5, 0.5), 2.5, 3, 3, 1)],
)
def test_no_distance_is_assumed(
    spacing: Any, depth: Any, outlined: int, areas: int, volumes: int, described: Described, originals: Callable
) -> None:
    images = [replace(image, spacing_mm=spacing, slice_mm=depth) for image in originals("CT")]
    for image in images[outlined:]:
        image.heatmap[:] = 0
    groups = measured_regions(described, segmentation(described, images), images)
    names = [name for group in groups for name in measured(group)]
    assert (names.count("Area"), names.count("Volume")) == (areas, volumes)
    assert names.count("Highest value of the anomaly map") == outlined


def test_dsrdump_reads_the_content_of_the_report(described: Described, originals: Callable, tmp_path: Path) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump (Debian package dcmtk) is not installed")
    path = tmp_path / "sr.dcm"
    path.write_bytes(as_file(structured_report(described, originals("CT"))))
    done = subprocess.run(["dsrdump", "+Pl", str(path)], capture_output=True, text=True, check=True)
    for words in (
        "Imaging Measurement Report",
        '"1.53125"',
        '"0.004"',
        "more unusual than 99.6 % of 250 normal scans",
        "ae on ct-chest",
        "3, sha256 0123456789ab",
        "Not for diagnosis",
    ):
        assert words in done.stdout, words


def test_the_key_objects_flag_the_images(described: Described, originals: Callable) -> None:
    images = originals("CT")
    ko = everything(described, images)["ko"]
    referenced = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in ko.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert {image.dataset.SOPInstanceUID for image in images} < referenced
    assert len(referenced) == 7


@pytest.mark.parametrize(
    ("charset", "name"),
    [  # every defined term of PS3.3 C.12.1.1.2
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 101", "Wałęsa^Đuro"),
        ("ISO_IR 109", "Ĥarkiv^Ġorġ"),
        ("ISO_IR 110", "Ķēniņš^Ģirts"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 127", "قباني^لنزار"),
        ("ISO_IR 126", "Διονυσιος"),
        ("ISO_IR 138", "שרון^דבורה"),
        ("ISO_IR 148", "Çavuşoğlu^İpek"),
        ("ISO_IR 203", "Œuvre^Zoë"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 166", "สมชาย^ใจดี"),
        ("ISO_IR 192", "王^小東"),
        ("GB18030", "王^小东"),
        ("GBK", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 144"], "Müller^Jörg=Люк"),
        (["", "ISO 2022 IR 159"], "Tei^Shi=丂^丟"),
        (["", "ISO 2022 IR 203"], "Œuvre^Zoë"),
    ],
)
def test_names_of_every_character_set_come_through(
    charset: str, name: str, described: Described, originals: Callable
) -> None:
    image = originals("MR")[0]
    image.dataset.SpecificCharacterSet, image.dataset.PatientName = charset, name
    source = in_unicode(dcmread(BytesIO(as_file(image.dataset))))
    for ds in everything(described, [SourceImage(source, 0, image.heatmap)]).values():
        assert str(dcmread(BytesIO(as_file(ds))).PatientName) == name


def test_chinese_as_scanners_write_it_loses_its_escapes(described: Described, originals: Callable) -> None:
    image = originals("MR")[0]
    image.dataset.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
    image.dataset.PatientName = "PLACEHOLDER^OF^THE^SAME^SIZE=PA"
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
    assert len(name) == len(str(image.dataset.PatientName)), "a value of another length would move all that follows"
    data = as_file(image.dataset).replace(b"PLACEHOLDER^OF^THE^SAME^SIZE=PA", name)
    source = in_unicode(dcmread(BytesIO(data)))
    for ds in everything(described, [SourceImage(source, 0, image.heatmap)]).values():
        assert str(dcmread(BytesIO(as_file(ds))).PatientName) == "Zhang^XiaoDong=张^小东"
