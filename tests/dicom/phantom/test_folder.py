"""Phantom folders: valid DICOM that the project reads, a correct label table, broken files rejected as documented."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.intake.find_files import discover
from pipeline.dicom.phantom import SCANNERS, LesionKind, make_patient, write_broken, write_demo, write_labels
from pipeline.dicom.phantom import write_phantoms as write
from pipeline.dicom.phantom.objects import SYNTAXES
from pipeline.errors import ConfigError, Rejected

LIMITS = DecodeLimits()
CLASSES = [("CT", None), ("CT", "head"), ("MR", None), ("CR", None), ("DX", None), ("US", None)]


def _one_a_scanner(folder: Path, modality: str, region: str | None) -> list[Path]:
    """One file from every scanner of a modality, each in another syntax that dciodvfy can open."""
    syntaxes = [syntax for syntax in SYNTAXES if syntax != DeflatedExplicitVRLittleEndian]
    manifest = write(folder, 16, modality, 0.5, 3, region=region, size=32, syntaxes=syntaxes)
    return list({study.scanner: study.files[0].path for study in manifest.studies}.values())


@pytest.mark.parametrize(("modality", "region"), CLASSES)
def test_every_class_and_scanner_is_valid(modality: str, region: str, tmp_path: Path, dciodvfy: Callable) -> None:
    files = _one_a_scanner(tmp_path, modality, region)
    assert len(files) == len(SCANNERS[modality])
    assert {path.parent.name: dciodvfy(path) for path in files} == {path.parent.name: [] for path in files}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_is_valid(syntax: str, tmp_path: Path, dciodvfy: Callable) -> None:
    (file,) = write(tmp_path, 1, "CT", 0, 0, size=32, syntaxes=[syntax]).files
    if syntax == DeflatedExplicitVRLittleEndian:  # this dciodvfy cannot inflate: show it the same data set inflated
        ds = pydicom.dcmread(file.path)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.save_as(file.path)
    assert dciodvfy(file.path) == []


@pytest.mark.parametrize("modality", list(SCANNERS))
def test_pixels_read_back_equal_those_drawn(modality: str, tmp_path: Path) -> None:
    slices = 3 if modality in ("CT", "MR") else 1
    manifest = write(tmp_path, 2 * len(SYNTAXES), modality, 0.5, 2, size=32, slices=slices)
    seen = set()
    for study in manifest.studies:
        patient = make_patient(study.patient_seed, modality, study.kind, 32, slices, grade=study.grade)
        for index, file in enumerate(study.files):
            one = read_instance(file.path, LIMITS)
            np.testing.assert_array_equal(one.stored[0], patient.stored[index])
            assert one.identity.sop_uid == file.sop_uid and one.identity.study_uid == study.study_uid
            assert (one.attributes.age_years, one.attributes.sex) == (patient.age, patient.sex)
            seen.add(one.attributes.transfer_syntax_uid)
    assert seen == set(SYNTAXES)


def test_ct_is_read_in_hounsfield_units_without_padding(tmp_path: Path) -> None:
    manifest = write(tmp_path, 12, "CT", 0, 1, size=32)
    for study in manifest.studies:
        one, patient = read_instance(study.files[0].path, LIMITS), make_patient(study.patient_seed, "CT", None, 32)
        physical = to_physical(one.stored, one.attributes)
        inside = np.ones((1, 32, 32), bool) if physical.valid is None else physical.valid
        assert (physical.valid is not None and not physical.valid.all()) == patient.scanner.padded
        np.testing.assert_allclose(physical.pixels[inside], patient.physical[inside], atol=1e-3)


def test_monochrome1_is_turned_back(tmp_path: Path) -> None:
    """Bone stays brighter than lung in physical units on every radiograph, whatever its photometric interpretation."""
    manifest, kinds = write(tmp_path, 12, "CR", 0, 1, size=32), set()
    for study in manifest.studies:
        one = read_instance(study.files[0].path, LIMITS)
        image = to_physical(one.stored, one.attributes).pixels[0]
        assert image[12:20, 15:17].mean() > image[10:16, 8:11].mean()
        kinds.add(one.attributes.original_photometric)
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_slices_are_spaced_evenly_and_named_in_order(tmp_path: Path) -> None:
    (study,) = write(tmp_path, 1, "CT", 0, 0, size=32, slices=5).studies
    ones = [read_instance(file.path, LIMITS).attributes for file in study.files]
    heights = np.array([one.positions[0][2] for one in ones])
    assert np.ptp(np.diff(heights)) < 1e-3 and (np.diff(heights) > 0).all()
    assert ones[0].slice_thickness_mm == pytest.approx(np.diff(heights)[0], abs=1e-3)
    assert [one.instance_number for one in ones] == [1, 2, 3, 4, 5]
    assert [file.relative_position for file in study.files] == [0, 0.25, 0.5, 0.75, 1]


def test_writing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, 7, "MR", 0.3, 4, size=32) for name in "ab")
    for one, two in zip(first.files, second.files, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
    assert len({file.sop_uid for file in first.files}) == 7


def test_abnormal_patients_are_counted_and_take_turns(tmp_path: Path) -> None:
    studies = write(tmp_path, 40, "MR", 0.3, 0, size=32).studies
    sick = [study for study in studies if study.label == "abnormal"]
    assert len(sick) == 12
    assert Counter(study.kind for study in sick) == dict.fromkeys(LesionKind, 3)
    assert Counter(study.grade for study in sick) == {1: 4, 2: 4, 3: 4}


@pytest.mark.parametrize("arguments", [(-1, 0.5, 0), (3, 1.5, 0), (3, 0.5, -1), (3, 0.5, 10**6)])
def test_refuses_impossible_folders(arguments: tuple[int, float, int], tmp_path: Path) -> None:
    count, fraction, seed = arguments
    with pytest.raises(ConfigError):
        write(tmp_path, count, "MR", fraction, seed)


def test_sizes_that_jpeg_2000_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="16 px"):
        write(tmp_path, 1, "MR", 0, 0, size=16)


def test_label_table_tells_the_truth(tmp_path: Path) -> None:
    manifest = write(tmp_path / "scans", 8, "CT", 0.5, 5, size=32, slices=4)
    with write_labels(manifest.studies, tmp_path).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    studies = {row["StudyInstanceUID"]: row["label"] for row in rows if not row["SOPInstanceUID"]}
    assert studies == {study.study_uid: study.label for study in manifest.studies}
    slices = {row["SOPInstanceUID"]: row for row in rows if row["SOPInstanceUID"]}
    for study in manifest.studies:
        for file in study.files if study.label == "abnormal" else ():
            row = slices.pop(file.sop_uid)
            assert row["label"] == file.label and bool(row["mask"]) == (file.mask is not None)
            if row["mask"]:
                np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / row["mask"])) > 0, file.mask)
    assert not slices


def test_broken_files_are_refused_as_promised(tmp_path: Path) -> None:
    """Each name, once through discovery (links, archives) and once through the reader."""
    expected = write_broken(tmp_path, 1)
    seen = {}
    for candidate in discover([tmp_path], LIMITS):
        name = candidate.name.relative_to(tmp_path).parts[0]
        if candidate.rejected is not None:
            seen[name] = candidate.rejected.code
            continue
        with pytest.raises(Rejected) as refusal:
            read_instance(candidate.path, LIMITS)
        seen[name] = refusal.value.code
        assert "BROKEN" not in str(refusal.value)
    assert seen == expected and len(expected) >= 13


def test_demo_is_a_mixed_inbox(tmp_path: Path) -> None:
    demo = write_demo(tmp_path, 0, 8, 4, size=32, slices=2, n_other=2)
    assert Counter(study.modality for study in demo.studies) == {"MR": 12, "CT": 2, "CR": 2, "DX": 2}
    assert sum(study.label == "abnormal" for study in demo.main.studies) == 4
    assert set(demo.broken) <= {path.name for path in (demo.inbox / "broken").iterdir()}
    assert not demo.labels_csv.is_relative_to(demo.inbox)
    for path in demo.inbox.rglob("*.dcm"):
        if path.parent.name != "broken":
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            assert str(ds.PatientName).startswith("PLANTED^") and ds.PatientID.startswith("PLANTED-")


def test_nothing_shows_the_invented_identity(tmp_path: Path) -> None:
    demo = write_demo(tmp_path, 0, 2, 1, size=32, slices=1, n_other=1)
    for text in (repr(demo), repr(demo.main), repr(demo.studies[0])):
        assert "PLANTED-" not in text and "PLANTED^" not in text and "2.25." not in text
