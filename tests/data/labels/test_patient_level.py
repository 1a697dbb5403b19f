"""A statement about a patient covers the studies so far, never a later one, and gives way to any about a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.rotation import rotate
from pipeline.data.labels.label_evidence import read_unassigned_evidence
from pipeline.data.labels.labels import import_labels, list_labels
from pipeline.data.sets.selection import select_slices
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms

Write = Callable[..., Path]
Scans = dict[str, Ids]


def add_study(settings: Settings, study: str, date: str, patient: str = "MRN-1", issuer: str = "") -> Ids:
    """Enter one more study of a person."""
    raw = RawIdentity(issuer, patient, study, f"{study}.1", f"{study}.1.1", "", date)
    with (
        Pseudonyms.open(settings) as keys,
        Crosswalk.open(settings) as crosswalk,
        Catalogue.open(settings) as catalogue,
        catalogue.session() as session,
    ):
        ids = keys.of(raw, settings.site)
        crosswalk.remember(ids, raw)
        attributes = InstanceAttributes(modality="MR", rows=4, columns=6)
        catalogue.add_instance(session, ids, attributes, pixel_key=f"{study:0>64}")
    return ids


def labels_of(catalogue: Catalogue) -> dict[str, str]:
    """Return the label in effect of each study."""
    return {ref.study_id: ref.label for ref in select_slices(catalogue).slices}


def test_all_studies_so_far_and_none_later(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write
) -> None:
    table = write("PatientID,label", "MRN-1,normal")
    assert "--level patient" in import_labels(table, settings).problems[0].reason
    assert import_labels(table, settings, patient_level=True).added == 2
    levels = {(row["level"], row["subject"]) for row in list_labels(catalogue)}
    assert levels == {("patient-study", scans[name].study_id) for name in ("a1", "b1")}
    later = add_study(settings, "1.3", "20270101")
    again = import_labels(table, settings, patient_level=True)
    assert (again.added, again.unchanged, again.problems) == (0, 2, ())
    effective = labels_of(catalogue)
    assert effective[scans["a1"].study_id] == effective[scans["b1"].study_id] == "normal"
    assert effective[later.study_id] == effective[scans["c1"].study_id] == "unknown"


@pytest.mark.parametrize(("date", "covered"), [("2024-01-05", 2), ("20240501", 3), ("31.12.2027", 4)])
def test_a_date_covers_the_studies_up_to_it_whenever_they_arrive(
    settings: Settings, scans: Scans, write: Write, date: str, covered: int
) -> None:
    table = write("PatientID,label,date", f"MRN-1,normal,{date}")
    assert import_labels(table, settings, patient_level=True).added == 2
    add_study(settings, "1.3", "20240501")
    add_study(settings, "1.4", "20270101")
    add_study(settings, "1.5", "")
    assert import_labels(table, settings, patient_level=True).added == covered - 2


def test_a_statement_about_a_study_overrides_it_in_any_order(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write
) -> None:
    import_labels(write("StudyInstanceUID,label", "1.1,abnormal"), settings)
    import_labels(write("PatientID,StudyInstanceUID,label", "MRN-1,,normal", "MRN-2,2.1,abnormal"), settings, True)
    import_labels(write("PatientID,label", "MRN-2,normal"), settings, patient_level=True)
    effective = labels_of(catalogue)
    assert [effective[scans[name].study_id] for name in ("a1", "b1", "c1")] == ["abnormal", "normal", "abnormal"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("PatientID,label", "MRN-9,normal"), "no study of this PatientID"),
        (("PatientID,label,date", "MRN-1,normal,2023-01-01"), "covers no later study"),
        (("PatientID,label", "MRN-7,normal"), "2 persons of different issuers"),
        (("PatientID,label,mask", "MRN-1,abnormal,m.png"), "its mask belongs to an instance"),
    ],
)
def test_a_line_that_covers_nothing_or_several_persons_is_reported(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write, lines: tuple[str, ...], reason: str
) -> None:
    for issuer in ("NORTH", "SOUTH"):
        add_study(settings, f"7.{len(issuer)}{ord(issuer[0])}", "20240101", "MRN-7", issuer)
    report = import_labels(write(*lines), settings, patient_level=True)
    assert report.added == 0 and reason in report.problems[0].reason and "MRN" not in report.problems[0].reason
    named = write("PatientID,IssuerOfPatientID,label", "MRN-7,SOUTH,normal")
    assert import_labels(named, settings, patient_level=True).added == 1


def test_the_labels_survive_a_rotation_of_the_key(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write
) -> None:
    import_labels(write("PatientID,label", "MRN-1,normal"), settings, patient_level=True)
    catalogue.close()
    rotate(settings)
    with Catalogue.open(settings) as opened:
        assert sorted(labels_of(opened).values()) == ["normal", "normal", "unknown", "unknown"]


def test_statements_about_patients_decide_on_their_sets(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write
) -> None:
    import_labels(write("PatientID,label", "MRN-1,normal", "MRN-2,abnormal"), settings, patient_level=True)
    with catalogue.reading() as session:
        evidence = {one.patient_id: one.labels for one in read_unassigned_evidence(session)}
    assert evidence == {scans["a1"].patient_id: {"normal"}, scans["c1"].patient_id: {"abnormal"}}
    chosen = select_slices(catalogue, labels=["normal"])
    assert {ref.study_id for ref in chosen.slices} == {scans["a1"].study_id, scans["b1"].study_id}
