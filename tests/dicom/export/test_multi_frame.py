"""Multi-frame originals: enhanced ones get a segmentation of the right frame, others a sentence."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from pipeline.dicom.export.described import Described, SourceImage
from pipeline.dicom.export.one_grid import left_out
from pipeline.dicom.export.parametric_map import parametric_map
from pipeline.dicom.export.segmentation import segmentation
from pipeline.stages.pacs import push
from pipeline.stages.pacs.push_evidence import Evidence

GROUPS = "PerFrameFunctionalGroupsSequence"


def opened(name: str) -> Dataset:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} (package pydicom-data) is not installed")
    return dcmread(path, stop_before_pixels=True)


def mapped(ds: Dataset, frame: int, rows: slice) -> SourceImage:
    heatmap = np.zeros((ds.Rows, ds.Columns), np.float32)
    heatmap[rows, 20:40] = 1
    return SourceImage(ds, frame, heatmap)


def test_an_enhanced_original_is_outlined_on_the_frames_that_differ(
    described: Described, dciodvfy: Callable, tmp_path: Path
) -> None:
    ds = opened("eCT_Supplemental.dcm")
    images = [mapped(ds, 1, slice(10, 30)), mapped(ds, 0, slice(50, 60))]
    assert left_out(images) == ""
    made = segmentation(described, images)
    assert made is not None
    made.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert dciodvfy(tmp_path / "seg.dcm") == []
    read = dcmread(BytesIO((tmp_path / "seg.dcm").read_bytes()))
    regions = {}
    for mask, groups in zip(read.pixel_array, read.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == ds.SOPInstanceUID
        place = ds.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == list(place.ImagePositionPatient)
        regions[int(source.ReferencedFrameNumber)] = mask
    assert np.array_equal(regions[2] > 0, images[0].heatmap > 0.5)
    assert np.array_equal(regions[1] > 0, images[1].heatmap > 0.5)


@pytest.mark.parametrize("frames", [(1, 0), (1,)])
def test_the_map_of_an_enhanced_original_has_the_chosen_frames(
    frames: tuple[int, ...], described: Described, dciodvfy: Callable, tmp_path: Path
) -> None:
    ds = opened("eCT_Supplemental.dcm")
    images = [mapped(ds, frame, slice(10, 20 + 10 * frame)) for frame in frames]
    made = parametric_map(described, images)
    assert made is not None
    made.save_as(tmp_path / "pm.dcm", enforce_file_format=True)
    assert dciodvfy(tmp_path / "pm.dcm") == []
    read = dcmread(tmp_path / "pm.dcm")
    assert read.NumberOfFrames == len(frames)
    heatmaps = {image.frame + 1: image.heatmap for image in images}
    for values, groups in zip(read.pixel_array.reshape(-1, ds.Rows, ds.Columns), read[GROUPS].value, strict=True):
        number = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert np.array_equal(values, heatmaps[number])
        place = ds.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == place.ImagePositionPatient


def test_frames_without_position_are_omitted_and_reported(described: Described, originals: Callable) -> None:
    loose = mapped(opened("emri_small.dcm"), 3, slice(10, 20))  # ten frames without functional groups
    assert segmentation(described, [loose]) is None
    assert "1 of 1 images" in left_out([loose])
    mixed = [loose, *originals("CT")]
    made = segmentation(described, mixed)
    assert made is not None and made.NumberOfFrames == 3
    assert "1 of 4 images" in left_out(mixed)
    assert left_out(originals("CT")) == ""


def test_views_of_several_sizes_leave_the_most_unusual_ones_outlined(
    described: Described, originals: Callable, dciodvfy: Callable, tmp_path: Path
) -> None:
    first, other = originals("DX")[0], originals("DX")[0]
    other.dataset.Rows, other.dataset.SOPInstanceUID = other.dataset.Rows // 2, "1.2.3.4"
    lateral = SourceImage(other.dataset, 0, other.heatmap[: other.dataset.Rows])
    made = segmentation(described, [first, lateral])
    assert made is not None and made.NumberOfFrames == 1
    source = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == first.dataset.SOPInstanceUID
    assert "1 of 2 images" in left_out([first, lateral])
    made.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert dciodvfy(tmp_path / "seg.dcm") == []


@pytest.mark.parametrize("fault", ["loose frames", "unfit originals"])
def test_push_reports_images_that_it_did_not_outline(fault: str, described: Described, originals: Callable) -> None:
    images: list[Any] = originals("CT")
    if fault == "loose frames":
        images = [mapped(opened("emri_small.dcm"), 3, slice(10, 20))]
    else:
        images[1] = SourceImage(images[1].dataset, 0, np.ones((3, 3), np.float32))
    evidence = Evidence("abcdef", images)
    assert [kind for kind, _ in push._objects(described, evidence, ("seg", "pm"))] == []
    assert len(evidence.notes) == (1 if fault == "loose frames" else 2)
    assert all(note.startswith("Study abcdef: ") for note in evidence.notes)
    assert "segmentation" in evidence.notes[0] and "map" in evidence.notes[-1]
