"""`nightread identity merge`: by Patient ID or pseudonym; what names nobody, or two, is refused and not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.patients import find_merged
from pipeline.data.catalogue.schema import Patient
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.phantom.folder import write_phantoms


@pytest.fixture
def people(nightread: Any, tmp_path: Path) -> list[str]:
    """The Patient IDs of three phantoms that were ingested; issuer B gave the third one's to somebody else, too."""
    files = write_phantoms(tmp_path / "inbox", 4, "MR", 0.0, 3, size=32).files
    numbers = [str(dcmread(file.path).PatientID) for file in files]
    for file, number, issuer in ((files[2], numbers[2], "A"), (files[3], numbers[2], "B")):
        dataset = dcmread(file.path)
        dataset.PatientID, dataset.IssuerOfPatientID = number, issuer
        dataset.save_as(file.path)
    assert nightread("ingest", tmp_path / "inbox").exit_code == 0
    return numbers[:3]


def pseudonym(workspace: Path, number: str, issuer: str = "") -> str:
    settings = Settings.load(workspace)
    with Pseudonyms.open(settings) as pseudonyms:
        return pseudonyms.patient(issuer or settings.site, number)


def test_by_patient_id(nightread: Any, people: list[str], tmp_path: Path) -> None:
    target, gone = (pseudonym(tmp_path / "workspace", number) for number in people[:2])
    done = nightread("identity", "merge", people[0], people[1], "--yes", "--json")
    assert json.loads(done.stdout) == {"patient": target, "absorbed": gone, "set": None}
    with Catalogue.open(Settings.load(tmp_path / "workspace")) as catalogue, catalogue.session() as session:
        assert find_merged(session, gone) == target
        assert session.get(Patient, gone) is None
    again = nightread("identity", "merge", people[0], people[1], "--yes")
    assert again.exit_code == 5
    assert "same patient already" in again.stderr


def test_by_pseudonym_and_by_issuer(nightread: Any, people: list[str], tmp_path: Path) -> None:
    target = pseudonym(tmp_path / "workspace", people[0])
    unclear = nightread("identity", "merge", target, people[2], "--yes")
    assert unclear.exit_code == 5
    assert "2 patients have that Patient ID" in unclear.stderr
    assert people[2] not in unclear.output
    done = nightread("identity", "merge", target, f"{people[2]}^^^B", "--yes")
    gone = pseudonym(tmp_path / "workspace", people[2], "B")
    assert f"The patient {gone[:12]} was merged into {target[:12]}" in done.stdout
    assert people[2] not in done.output
    assert (
        nightread("identity", "merge", target, people[2], "--yes", "--json").exit_code == 5
    )  # A's, or the target itself: two


def test_nobody_and_no_answer_change_nothing(nightread: Any, people: list[str]) -> None:
    done = nightread("identity", "merge", people[0], "Doe^Jane", "--yes")
    assert done.exit_code == 5
    assert "No patient in the catalogue" in done.stderr
    assert "Doe" not in done.output
    assert nightread("identity", "merge", people[0], people[1]).exit_code == 1  # asked, and no answer came
    assert json.loads(nightread("identity", "merge", people[0], people[1], "--yes", "--json").stdout)["set"] is None
