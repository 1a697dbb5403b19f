"""FHIR bundles: valid R4, linked with each other, without a name, and with real identifiers only where asked.

Validated by fhirclient 4.4, whose models were generated from R4 (4.0.1), with nothing missing or left over; and by
fhir.resources 8.3, whose oldest models are R4B (4.3.0): stricter about values, and the same for these resources.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.export.described import NOT_FOR_DIAGNOSIS, Described
from pipeline.dicom.export.fhir import ImagedStudy, StudyImage, bundle
from pipeline.dicom.identity.crosswalk import Crosswalk

CT = "urn:oid:1.2.840.10008.5.1.4.1.1.2"
IMAGES = (
    StudyImage("1.2.3.1", "1.2.3.1.1", CT, "CT"),
    StudyImage("1.2.3.1", "1.2.3.1.1", CT, "CT"),
    StudyImage("1.2.3.2", "1.2.3.2.1", CT, "CT"),
)
REAL = ImagedStudy(True, "4711", "1.2.3", IMAGES, "HOSPITAL", "A-1", "20260102")
PSEUDONYMOUS = ImagedStudy(False, "a" * 32, "b" * 32, (StudyImage("c" * 32, "d" * 32, CT, "CT"),))


def r4(value: dict[str, Any]) -> None:
    """Raise where a value is not a Bundle of FHIR 4.0.1: a type, a missing or an unknown element, at any depth."""
    models = pytest.importorskip("fhirclient.models.bundle", reason="fhirclient is not installed")
    models.Bundle(value, strict=True)


def r4b(value: dict[str, Any]) -> None:
    """Raise where a value is not a Bundle of FHIR 4.3.0."""
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    models.Bundle.model_validate(value)


def by_type(value: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["resource"]["resourceType"]: entry["resource"] for entry in value["entry"]}


@pytest.mark.parametrize("validate", [r4, r4b])
@pytest.mark.parametrize("about", [REAL, PSEUDONYMOUS, ImagedStudy(False, "", "b" * 32, ())])
@pytest.mark.parametrize("p_value", [0.004, None])
def test_every_bundle_is_valid(
    validate: Callable, about: ImagedStudy, p_value: float | None, described: Described
) -> None:
    validate(json.loads(json.dumps(bundle(replace(described, p_value=p_value), about))))


@pytest.mark.parametrize("validate", [r4, r4b])
@pytest.mark.parametrize("fault", ["unknown element", "wrong type", "missing status"])
def test_the_validators_would_see_a_fault(validate: Callable, fault: str, described: Described) -> None:
    value = bundle(described, REAL)
    observation = by_type(value)["Observation"]
    if fault == "unknown element":
        observation["certainty"] = "high"
    elif fault == "wrong type":
        observation["valueQuantity"]["value"] = {"much": 1}
    else:
        del observation["status"]
    with pytest.raises(Exception, match=r"(?i)certainty|value|status"):
        validate(value)


def test_resources_describe_the_finding_and_refer_to_each_other(described: Described) -> None:
    value = bundle(described, REAL)
    resources, urls = by_type(value), {e["resource"]["resourceType"]: e["fullUrl"] for e in value["entry"]}
    observation, report, study = resources["Observation"], resources["DiagnosticReport"], resources["ImagingStudy"]
    assert observation["valueQuantity"]["value"] == 1.53125
    components = {part["code"]["coding"][0]["code"]: part for part in observation["component"]}
    assert components["p-value"]["valueQuantity"]["value"] == 0.004
    assert components["how-unusual"]["valueString"] == described.words
    assert NOT_FOR_DIAGNOSIS in observation["note"][0]["text"] and NOT_FOR_DIAGNOSIS in report["conclusion"]
    assert described.words in report["conclusion"] and "preliminary" == report["status"] == observation["status"]
    device = resources["Device"]
    assert device["deviceName"][0]["name"] == described.model and device["version"][0]["value"] == described.version
    assert observation["derivedFrom"] == report["imagingStudy"] == [{"reference": urls["ImagingStudy"]}]
    assert report["result"] == [{"reference": urls["Observation"]}]
    assert {r["subject"]["reference"] for r in (observation, report, study)} == {urls["Patient"]}
    assert observation["device"] == {"reference": urls["Device"]}
    assert [(s["uid"], len(s["instance"])) for s in study["series"]] == [("1.2.3.1", 1), ("1.2.3.2", 1)]
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}
    assert study["identifier"][1]["value"] == "A-1" and study["started"] == "2026-01-02"


def test_equal_findings_give_equal_bundles_and_others_different_ones(described: Described) -> None:
    assert bundle(described, REAL) == bundle(described, REAL)
    other = bundle(replace(described, key="score-1/abc/2"), REAL)
    urls = [{e["fullUrl"] for e in value["entry"]} | {value["id"]} for value in (bundle(described, REAL), other)]
    assert len(urls[0]) == 6 and not urls[0] & urls[1]


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.iterdir())]


def push(scored: Any, *more: str) -> Any:
    return CliRunner().invoke(group, ["-w", str(scored.settings.workspace), "push", scored.run_id, "--json", *more])


@pytest.mark.parametrize("inside", [True, False])
def test_real_identifiers_leave_only_on_purpose(scored: Any, tmp_path: Path, inside: bool) -> None:
    folder = scored.settings.workspace / "outbox" / "fhir" if inside else tmp_path / "fhir"
    done = push(scored, "--fhir", str(folder))
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["fhir"] == {
        "run_id": scored.run_id,
        "bundles": 2,
        "real_identifiers": not inside,
    }
    bundles, text = written(folder), "".join(file.read_text() for file in folder.iterdir())
    with Catalogue.open(scored.settings) as catalogue, Crosswalk.open(scored.settings) as crosswalk:
        rows = catalogue.list_findings(scored.run_id, True)
        real = [crosswalk.find_identity(row.study_id) for row in rows]
        instances = [crosswalk.find_identity(row.evidence[0]["instance_id"]).sop_uid for row in rows]
    assert len(bundles) == len(rows) == 2
    for value in bundles:
        r4(value)
        r4b(value)
    identifiers = {by_type(value)["Patient"]["identifier"][0]["value"] for value in bundles}
    assert identifiers == ({row.patient_id for row in rows} if inside else {who.patient_id for who in real})
    for uid in (*(who.study_uid for who in real), *instances):
        assert (uid in text) is not inside
    assert not inside or scored.planted not in text
    assert all(file.stat().st_mode & 0o077 == 0 for file in [folder, *folder.iterdir()])
    assert not any(scored.planted in file.name for file in folder.iterdir())
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert push(scored, "--fhir", str(folder)).exit_code == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_no_destination_and_a_folder_that_is_not_one(scored: Any, tmp_path: Path) -> None:
    nowhere = push(scored)
    assert nowhere.exit_code == 2 and "--fhir" in nowhere.output
    (tmp_path / "file").touch()
    bad = push(scored, "--fhir", str(tmp_path / "file" / "x"))
    assert bad.exit_code == 2 and "cannot be written" in bad.output
