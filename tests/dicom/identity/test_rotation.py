"""A key rotation renames everything, loses nothing, changes no sets, and resumes after a failure at any step."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import JSON, String, func, select
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue import schema
from pipeline.data.catalogue.rename_pseudonyms import PSEUDONYM_COLUMNS, PSEUDONYM_JSON
from pipeline.data.catalogue.rotation import rotate
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms, next_key_file
from pipeline.errors import IdentityError

# Text columns that hold no pseudonym, each looked at once by a person.
_OTHER_TEXT = {
    *("patients.set_name", "patients.set_reason", "series.modality", "instances.content_hash"),
    *("instances.attributes_hash", "instances.pixel_key", "instance_versions.attributes_hash", "source_files.outcome"),
    "source_files.rules",
    *("rejections.level", "rejections.code", "rejections.sentence", "labels.level", "labels.label", "labels.source"),
    *("labels.reader", "labels.labelled_on", "labels.official_set", "labels.mask_key", "runs.run_id", "runs.kind"),
    *("runs.route", "runs.folder", "runs.sha256", "runs.state", "findings.route", "findings.model_sha256"),
    *("findings.run_id", "findings.guarantee", "findings.rule", "not_scored.run_id", "not_scored.code"),
    *("not_scored.sentence", "test_openings.run_id"),
    *("exports.run_id", "exports.kind", "exports.object_uid", "exports.destination", "exports.state", "exports.reason"),
    "test_openings.purpose",
    *(f"decisions.{name}" for name in ("token", "outcome", "reader", "code", "scheme", "meaning", "free_text")),
    *(f"decisions.{name}" for name in ("comment", "run_id", "model_sha256", "chain_hash")),
    *("reading_draws.run_id", "reading_frame.run_id", "reading_list.modality", "reading_list.body_part"),
    *("reading_list.route", "reading_list.model_sha256", "leases.holder", "users.name", "users.role"),
    *("users.password_hash", "user_sessions.token_hash", "user_sessions.user_name", "user_sessions.address"),
    *(f"drafts.{name}" for name in ("reader", "window_name", "outcome", "code", "text", "comment", "region")),
    *("heatmap_views.reader", "heatmap_views.first_look"),
    *("login_failures.key", "audit_log.user_name", "audit_log.role", "audit_log.address", "audit_log.action"),
    *("audit_log.subject", "audit_log.chain_hash"),
    *(f"promotions.{name}" for name in ("route", "action", "run", "version", "detector_sha256", "replaced_run")),
    *(f"promotions.{name}" for name in ("replaced_version", "replaced_sha256", "who", "why", "report_sha256")),
    *("promotions.chain_hash", "notices.key", "notices.severity", "notices.sentence"),
    *("scan_measures.route", "scan_measures.model_sha256"),
    *(f"scoring_claims.{name}" for name in ("run_id", "model_sha256", "state", "worker")),
    *("schedules.name", "nights.schedule", "nights.state", "beats.name"),
    *("alerts.key", "alerts.severity", "alerts.sentence", "alerts.state"),
    *(f"alert_messages.{name}" for name in ("event", "receiver", "state", "reason")),
    *("redactions.seal", "removed_series.run", "legal_holds.why", "promotion_forms.token"),
}
_OTHER_JSON = {"series.attributes", "instances.attributes", "instance_versions.attributes"}
_OTHER_JSON |= {"decisions.region", "audit_log.detail", "scan_measures.measures"}
_OTHER_JSON |= {"schedules.definition", "nights.summary", "beats.detail", "erasures.steps"}


def _everything(hospital: Any) -> str:
    """Dump the whole catalogue as text."""
    engine = hospital.engine()
    with engine.connect() as connection:
        tables = {t.name: [list(r) for r in connection.execute(select(t))] for t in schema.Base.metadata.sorted_tables}
    engine.dispose()
    return json.dumps(tables, default=str, sort_keys=True)


def _pseudonyms(hospital: Any) -> set[str]:
    levels = ("patient_id", "study_id", "series_id", "instance_id", "frame_of_reference_id")
    return {getattr(ids, level) for person in hospital.people for ids in person for level in levels}


def test_every_column_of_the_catalogue_is_classified() -> None:
    found_text, found_json = set(), set()
    for table in schema.Base.metadata.sorted_tables:
        for column in table.columns:
            name = f"{table.name}.{column.name}"
            if isinstance(column.type, JSON):
                found_json.add(name)
            elif isinstance(column.type, String):
                found_text.add(name)
    renamed = {f"{table}.{column}" for table, columns in PSEUDONYM_COLUMNS.items() for column in columns}
    assert renamed | _OTHER_TEXT == found_text and not renamed & _OTHER_TEXT
    assert {f"{t}.{c}" for t, c in PSEUDONYM_JSON.items()} | _OTHER_JSON == found_json


def test_no_old_pseudonym_is_left_and_nobody_moves(hospital: Any) -> None:
    before, members = _pseudonyms(hospital), hospital.membership()
    text = _everything(hospital)
    assert all(old in text for old in before)  # negative control: the search finds what is there
    report = rotate(hospital.settings)
    text = _everything(hospital)
    assert not [old for old in before if old in text]
    assert hospital.membership() == members
    counts = {"patient": 4, "study": 4, "series": 4, "instance": 12, "path": 16, "frame-of-reference": 4}
    assert report.renamed == counts


def test_the_new_key_makes_the_pseudonyms_that_the_catalogue_now_has(hospital: Any) -> None:
    rotate(hospital.settings)
    text = _everything(hospital)
    with Pseudonyms.open(hospital.settings) as keys:
        expected = [keys.patient("ISSUER-B", "MRN-0001"), keys.patient("local", "MRN-0002"), keys.study("1.2.826.3.1")]
        expected += [keys.patient_of_study("1.2.826.0.1"), keys.path("/scans/1.2.826.3.1.1.2")]
        expected += [keys.instance("1.2.826.3.1.1.2") + "/0", keys.frame_of_reference("1.2.826.3.5")]
    assert all(name in text for name in expected)


def test_labels_rejections_findings_and_merges_follow(hospital: Any) -> None:
    rotate(hospital.settings)
    engine = hospital.engine()
    with Session(engine) as session, Pseudonyms.open(hospital.settings) as keys:
        study = keys.study("1.2.826.3.1")
        instance = keys.instance("1.2.826.3.1.1.0")
        labels = session.scalars(select(schema.LabelRow.subject)).all()
        assert {study, instance, keys.patient("ISSUER-B", "MRN-0003")} <= set(labels)
        finding = session.scalars(select(schema.FindingRow).where(schema.FindingRow.study_id == study)).one()
        assert finding.evidence[0] == {"instance_id": instance, "slice": f"{instance}/0", "score": 2.5}
        merged = session.scalars(select(schema.MergedPatient)).one()
        assert (merged.absorbed_id, merged.patient_id) == (
            keys.patient("local", "MRN-0002"),
            keys.patient("ISSUER-B", "MRN-0001"),
        )
        series = keys.series("1.2.826.3.1.1")
        assert series in session.scalars(select(schema.RejectionRow.subject)).all()
        assert series in session.scalars(select(schema.NotScored.series_id)).all()
        summary = session.scalars(select(schema.RunRow.summary)).one()
        assert keys.patient("ISSUER-B", "MRN-0001") in summary["patients"]
    engine.dispose()


def test_old_reports_resolve_after_two_rotations(hospital: Any) -> None:
    old = hospital.people[3][1]
    rotate(hospital.settings)
    rotate(hospital.settings)
    with Crosswalk.open(hospital.settings) as crosswalk:
        assert crosswalk.find_identity(old.instance_id).sop_uid == "1.2.826.3.1.1.1"
        assert crosswalk.find_identity(old.patient_id).patient_id == "MRN-0003"
        assert crosswalk.reveal(old.frame_of_reference_id) == {"frame_of_reference_uid": "1.2.826.3.5"}
        with Pseudonyms.open(hospital.settings) as keys:
            assert crosswalk.current_id(old.study_id) == keys.study("1.2.826.3.1")


@pytest.mark.parametrize("step", ["key", "map", "catalogue", "crosswalk", "rename"])
def test_a_failure_after_any_step_is_resumed(hospital: Any, step: str) -> None:
    members = hospital.membership()
    old = _pseudonyms(hospital)

    def fail(name: str) -> None:
        if name == step:
            raise OSError("pulled the plug")

    with pytest.raises(OSError, match="plug"):
        rotate(hospital.settings, on_step=fail)
    if step != "rename":
        with pytest.raises(IdentityError, match="interrupted"):
            Pseudonyms.open(hospital.settings)
        rotate(hospital.settings)
    assert not next_key_file(hospital.settings).exists()
    assert hospital.membership() == members
    text = _everything(hospital)
    assert not [name for name in old if name in text]


def test_rotation_is_refused_while_pseudonyms_are_in_use(hospital: Any) -> None:
    with Pseudonyms.open(hospital.settings), pytest.raises(IdentityError, match="in use"):
        rotate(hospital.settings)
    rotate(hospital.settings)


def test_a_catalogue_that_the_crosswalk_does_not_know_is_refused_before_anything_changes(hospital: Any) -> None:
    engine = hospital.engine()
    with Session(engine) as session, session.begin():
        session.add(schema.Patient(patient_id="f" * 32, draw=0.5))
    engine.dispose()
    before = _everything(hospital)
    with pytest.raises(IdentityError, match="patient f{12}"):
        rotate(hospital.settings)
    assert _everything(hospital) == before


def test_a_crosswalk_of_another_key_is_refused(hospital: Any) -> None:
    hospital.settings.key_file.unlink()
    from pipeline.dicom.identity.keyfile import create_key

    create_key(hospital.settings.key_file)
    with pytest.raises(IdentityError, match=r"\([0-9a-f]+\).*\([0-9a-f]+\)"):
        rotate(hospital.settings)
    assert not next_key_file(hospital.settings).exists()


def test_an_empty_workspace_has_no_key_to_rotate(settings: Settings) -> None:
    with pytest.raises(IdentityError, match="-w"):
        rotate(settings)


def test_row_counts_stay(hospital: Any, make_hospital: Callable[..., Any]) -> None:
    def counts() -> dict[str, int]:
        engine = hospital.engine()
        with engine.connect() as connection:
            tables = schema.Base.metadata.sorted_tables
            rows = {t.name: connection.execute(select(func.count()).select_from(t)).scalar_one() for t in tables}
        engine.dispose()
        return rows

    before = counts()
    rotate(hospital.settings)
    assert counts() == before and before["instances"] == 12
