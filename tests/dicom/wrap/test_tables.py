"""Everything beside the pixels: identity, series, labels, masks, splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from pipeline.dicom.wrap.wrap import wrap
from pipeline.errors import ConfigError

RNG = np.random.default_rng(1)


@pytest.fixture
def pictures(data: Path) -> list[str]:
    """Six different pictures `0.png` .. `5.png`."""
    for number in range(6):
        Image.fromarray(RNG.integers(0, 256, (8, 9), np.uint8)).save(data / f"{number}.png")
    return [f"{number}.png" for number in range(6)]


def test_slices_of_a_patient_form_one_series_in_order(
    pictures: list[str], manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    rows = [{"file": name, "patient_id": "p1", "slice_index": 10 - n} for n, name in enumerate(pictures[:3])]
    report = wrap(manifest(rows), tmp_path / "out", modality="MR")
    objects = instances(report)
    assert len({one.identity.series_uid for one in objects}) == len({one.identity.study_uid for one in objects}) == 1
    assert [one.attributes.instance_number for one in objects] == [10, 9, 8]
    assert len({one.identity.sop_uid for one in objects}) == 3
    assert (report.instances, report.patients, report.studies, report.image_is_subject) == (3, 1, 1, 0)


def test_images_without_slice_index_are_studies_of_their_patient(
    pictures: list[str], manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    report = wrap(manifest([{"file": name, "patient_id": "p1"} for name in pictures[:2]]), tmp_path / "out")
    objects = instances(report)
    assert {one.identity.patient_id for one in objects} == {"p1"}
    assert len({one.identity.study_uid for one in objects}) == 2


def test_study_id_joins_images(pictures: list[str], manifest: Callable, instances: Callable, tmp_path: Path) -> None:
    rows = [{"file": name, "patient_id": "p1", "study_id": "s"} for name in pictures[:2]]
    objects = instances(wrap(manifest(rows), tmp_path / "out"))
    assert len({one.identity.study_uid for one in objects}) == 1
    assert len({one.identity.series_uid for one in objects}) == 2


def test_without_patient_each_image_is_a_flagged_subject(
    pictures: list[str], manifest: Callable, table: Callable, tmp_path: Path
) -> None:
    report = wrap(manifest([{"file": name, "slice_index": 1} for name in pictures]), tmp_path / "out")
    rows = table(report)
    assert len({row["PatientID"] for row in rows}) == len({row["StudyInstanceUID"] for row in rows}) == 6
    assert {row["image_is_subject"] for row in rows} == {"1"}
    assert report.image_is_subject == 6 and "image level" in report.sentence()


def test_the_label_table_agrees_with_the_manifest(
    pictures: list[str], manifest: Callable, table: Callable, instances: Callable, tmp_path: Path
) -> None:
    rows = [
        {"file": pictures[0], "patient_id": "p", "label": "normal", "split": "train", "relative_position": 0.25},
        {"file": pictures[1], "patient_id": "q", "label": "Abnormal", "split": "val"},
        {"file": pictures[2], "patient_id": "r", "label": "", "split": "test"},
    ]
    report = wrap(manifest(rows), tmp_path / "out", dataset="little")
    labelled = table(report)
    assert [row["label"] for row in labelled] == ["normal", "abnormal", "unknown"]
    assert [row["official_set"] for row in labelled] == ["train", "validate", "test"]
    assert [row["relative_position"] for row in labelled] == ["0.25", "", ""]
    assert {row["source"] for row in labelled} == {"little"}
    assert [row["SOPInstanceUID"] for row in labelled] == [one.identity.sop_uid for one in instances(report)]
    assert report.labels == {"abnormal": 1, "normal": 1, "unknown": 1}


def test_masks_are_written_beside_the_table(
    data: Path, pictures: list[str], manifest: Callable, table: Callable, tmp_path: Path
) -> None:
    mask = RNG.random((8, 9)) > 0.7
    Image.fromarray(mask.astype(np.uint8) * 7).save(data / "m.png")
    volume = RNG.integers(0, 9, (3, 8, 9), np.uint8)
    np.savez(data / "v.npz", volume=volume, lesion=volume > 6)
    rows = [
        {"file": pictures[0], "label": "abnormal", "mask": "m.png"},
        {"file": "v.npz::volume", "label": "abnormal", "mask": "v.npz::lesion"},
    ]
    report = wrap(manifest(rows), tmp_path / "out")
    flat, deep = (report.labels_csv.parent / row["mask"] for row in table(report))
    np.testing.assert_array_equal(np.asarray(Image.open(flat)) > 0, mask)
    np.testing.assert_array_equal(np.load(deep)["mask"], volume > 6)


def test_sex_age_and_body_part_arrive(pictures: list[str], manifest: Callable, tmp_path: Path) -> None:
    row = {"file": pictures[0], "patient_id": "p", "sex": "f", "age": "61.0", "body_part": "chest", "modality": "cr"}
    report = wrap(manifest([row]), tmp_path / "out")
    ds = pydicom.dcmread(next(report.dicom.rglob("*.dcm")))
    assert (ds.PatientSex, ds.PatientAge, ds.BodyPartExamined, ds.Modality) == ("F", "061Y", "CHEST", "CR")


def test_nothing_is_invented(pictures: list[str], manifest: Callable, tmp_path: Path) -> None:
    """No geometry, no acquisition, no equipment, no dates: the file may contain none of these keywords."""
    report = wrap(manifest([{"file": pictures[0], "patient_id": "p", "label": "abnormal"}]), tmp_path / "out")
    ds = pydicom.dcmread(next(report.dicom.rglob("*.dcm")))
    invented = (
        "PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing SliceThickness SpacingBetweenSlices "
        "ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID KVP EchoTime RepetitionTime "
        "MagneticFieldStrength AcquisitionDate ContentDate WindowCenter WindowWidth BurnedInAnnotation ViewPosition"
    )
    assert [name for name in invented.split() if name in ds] == []
    empty = "PatientName PatientBirthDate StudyDate StudyTime AccessionNumber ReferringPhysicianName Manufacturer"
    assert [ds[name].value for name in empty.split() if ds[name].value] == []
    assert ds.ConversionType == "WSD"
    assert "abnormal" not in str(ds)


def test_wrapping_twice_writes_the_same_bytes(pictures: list[str], manifest: Callable, tmp_path: Path) -> None:
    path = manifest([{"file": name, "split": "train"} for name in pictures])
    written = []
    for out in ("a", "b"):
        report = wrap(path, tmp_path / out)
        files = sorted(file for file in (tmp_path / out).rglob("*") if file.is_file())
        written.append({str(file.relative_to(tmp_path / out)): file.read_bytes() for file in files})
        assert report.instances == 6
    assert written[0] == written[1]


def test_other_rows_do_not_change_an_object(
    pictures: list[str], manifest: Callable, table: Callable, tmp_path: Path
) -> None:
    few, all_rows = [{"file": pictures[4]}], [{"file": name} for name in pictures]
    alone = table(wrap(manifest(few), tmp_path / "a"))[0]["SOPInstanceUID"]
    together = [row["SOPInstanceUID"] for row in table(wrap(manifest(all_rows), tmp_path / "b"))]
    assert alone == together[4] and len(set(together)) == 6
    named = table(wrap(manifest(few), tmp_path / "c", dataset="another"))[0]["SOPInstanceUID"]
    assert named != alone


def test_npz_keeps_splits_and_labels(data: Path, table: Callable, tmp_path: Path) -> None:
    members = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        members[f"{split}_images"] = RNG.integers(0, 256, (count, 5, 5), np.uint8)
        members[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 3
    np.savez(data / "x.npz", **members)
    report = wrap(data / "x.npz", tmp_path / "out", modality="CR", normal=(0, 2))
    rows = table(report)
    assert [row["official_set"] for row in rows] == ["train"] * 4 + ["validate"] * 2 + ["test"] * 3
    assert [row["label"] for row in rows[:4]] == ["normal", "abnormal", "normal", "normal"]
    assert {pydicom.dcmread(file).Modality for file in report.dicom.rglob("*.dcm")} == {"CR"}
    plain = wrap(data / "x.npz", tmp_path / "plain")
    assert (plain.instances, plain.labels) == (9, {"abnormal": 5, "normal": 4})


@pytest.mark.parametrize("members", [{"pictures": [1]}, {"images": [[1]]}])
def test_other_npz_files_are_refused(members: dict[str, list[int]], data: Path, tmp_path: Path) -> None:
    np.savez(data / "x.npz", **members)
    with pytest.raises(ConfigError):
        wrap(data / "x.npz", tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((5, 3), int), r"\b5 images\b.*\(5, 3\)"),  # ChestMNIST: one bit a finding
        (np.zeros(4, int), r"\(4,\)"),
        (np.zeros(6, int), r"\(6,\)"),
        (np.array(0), r"\(\)"),
        (np.array([0, 1, np.nan, 0, 1]), "whole numbers"),
        (np.array([0, 0.5, 1, 0, 1]), "whole numbers"),
        (np.array(list("abcde")), "whole numbers"),
    ],
)
def test_labels_are_never_paired_with_other_images(labels: np.ndarray, match: str, data: Path, tmp_path: Path) -> None:
    np.savez(data / "x.npz", images=np.zeros((5, 4, 4), np.uint8), labels=labels)
    with pytest.raises(ConfigError, match=match):
        wrap(data / "x.npz", tmp_path / "out")


def test_an_npz_without_a_normal_image_is_refused(data: Path, tmp_path: Path) -> None:
    np.savez(data / "x.npz", images=np.zeros((3, 3, 3), np.uint8), labels=np.array([1, 2, 1]))
    with pytest.raises(ConfigError, match=r"\[0\].*\[1, 2\]"):
        wrap(data / "x.npz", tmp_path / "out")


@pytest.mark.parametrize("body_part", ["", "CHEST", "HAND"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("frames", [1, 3])
def test_objects_are_valid(
    body_part: str, kind: str, frames: int, data: Path, manifest: Callable, tmp_path: Path, dciodvfy: Callable
) -> None:
    np.savez(data / "x.npz", v=RNG.normal(100, 30, (frames, 7, 9)).astype(kind))
    address = "x.npz::v" if frames > 1 else "x.npz::v[0]"
    row = {"file": address, "body_part": body_part, "modality": "MR", "sex": "O", "age": 40}
    report = wrap(manifest([row]), tmp_path / "out")
    assert dciodvfy(next(report.dicom.rglob("*.dcm"))) == []
