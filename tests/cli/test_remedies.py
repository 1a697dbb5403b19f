"""A remedy that a refusal advises works when it is followed to the letter, and the file is then listed no longer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless, generate_uid

from pipeline.dicom.phantom.folder import write_phantoms


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [file.path for file in write_phantoms(tmp_path / "inbox", 2, "MR", 0.0, 3, size=32).files[:2]]


def refusals(nightread: Any, *options: str) -> list[dict[str, str]]:
    return json.loads(nightread("rejections", "--json", *options).stdout)


def ingest(nightread: Any, path: Path) -> dict[str, Any]:
    return json.loads(nightread("ingest", path, "--json").stdout)


def follow(nightread: Any, sentence: str) -> Any:
    (command,) = re.findall(r"`nightread ([^`]+)`", sentence)
    return nightread(*command.split(), "--yes")


def same_study(first: Path, second: Path) -> None:
    """Give the second file a series of the first one's study, under the second patient's name."""
    ds = dcmread(second)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = dcmread(first).StudyInstanceUID, generate_uid()
    ds.save_as(second)


def test_two_patients_of_one_study_are_merged_as_advised(nightread: Any, files: list[Path]) -> None:
    first, second = files
    same_study(first, second)
    assert ingest(nightread, first)["added"] == 1
    assert ingest(nightread, second)["rejected"] == {"conflicting-duplicate": 1}
    assert ingest(nightread, second)["skipped"] == 1
    keep, absorb = (str(dcmread(path).PatientID) for path in files)
    other_way_round = nightread("identity", "merge", absorb, keep, "--yes")
    assert other_way_round.exit_code == 5 and "give the other one first" in other_way_round.stderr
    (refused,) = refusals(nightread)
    done = follow(nightread, refused["sentence"])
    assert done.exit_code == 0 and "was merged into" in done.stdout
    assert ingest(nightread, second)["added"] == 1
    assert refusals(nightread) == []
    assert [one["code"] for one in refusals(nightread, "--all")] == ["conflicting-duplicate"]


def test_a_patient_whose_every_file_was_refused_is_merged_by_patient_id(nightread: Any, files: list[Path]) -> None:
    same_study(*files)
    assert [ingest(nightread, path)["added"] for path in files] == [1, 0]
    keep, absorb = (str(dcmread(path).PatientID) for path in files)
    assert nightread("identity", "merge", keep, absorb, "--yes").exit_code == 0
    assert ingest(nightread, files[1])["added"] == 1


def nested(path: Path) -> None:
    ds, inner = dcmread(path), Dataset()
    inner.CodeValue = "x"
    for _ in range(6):
        outer = Dataset()
        outer.ConceptCodeSequence = Sequence([inner])
        outer["ConceptCodeSequence"].is_undefined_length = True  # such are parsed with the header
        inner = outer
    ds.ConceptCodeSequence = Sequence([inner])
    ds["ConceptCodeSequence"].is_undefined_length = True
    ds.save_as(path)


def compressed(path: Path) -> None:
    ds = dcmread(path)
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.Rows, ds.Columns = 7, 0, 48, 48
    ds.PixelData = bytes(range(48)) * 48
    ds.compress(JPEGLSLossless, np.frombuffer(ds.PixelData, np.uint8).reshape(48, 48), generate_instance_uid=False)
    ds.save_as(path)


@pytest.mark.parametrize(
    ("spoil", "code", "limit", "low", "high"),
    [
        (nested, "nested-too-deep", "sequence_depth", 3, 16),
        (compressed, "decompression-bomb", "decoded_bytes", 48 * 48 + 9, 10**6),
    ],
)
def test_a_limit_that_is_raised_as_advised_lets_the_file_in(
    nightread: Any, files: list[Path], tmp_path: Path, spoil: Any, code: str, limit: str, low: int, high: int
) -> None:
    spoil(files[0])
    (tmp_path / "workspace").mkdir()
    for value, expected in ((low, {code: 1}), (high, {})):
        (tmp_path / "workspace/settings.yaml").write_text(f"decode: {{{limit}: {value}}}\n")
        assert ingest(nightread, files[0])["rejected"] == expected
    assert refusals(nightread) == []
