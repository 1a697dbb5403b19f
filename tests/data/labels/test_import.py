"""Importing labels: the subject of a line, the stored values, and that nothing is dropped silently or added twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.rotation import rotate
from pipeline.data.catalogue.schema import Patient
from pipeline.data.labels.labels import LabelReport, add_label, import_labels, list_labels
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.errors import ConfigError

Write = Callable[..., Path]
Scans = dict[str, Ids]


def _subjects(catalogue: Catalogue) -> list[tuple[str, str, str]]:
    return [(row["level"], row["subject"], row["label"]) for row in list_labels(catalogue)]


def _reasons(report: LabelReport) -> list[str]:
    return [str(problem) for problem in report.problems]


@pytest.mark.parametrize(
    ("header", "line", "level", "scan"),
    [
        ("StudyInstanceUID", "2.1", "study", "c1"),
        ("AccessionNumber", "ACC-3", "study", "c1"),
        ("PatientID,StudyDate", "MRN-2,20240301", "study", "c1"),
        ("PatientID,StudyDate", "MRN-2 ,2024-03-01", "study", "c1"),
        ("SeriesInstanceUID", "1.1.1", "series", "a1"),
        ("SOPInstanceUID", "1.1.1.2", "instance", "a2"),
        ("SOPInstanceUID,StudyInstanceUID", "1.1.1.2,1.1", "instance", "a2"),
        ("StudyInstanceUID,AccessionNumber,PatientID,StudyDate", "1.2,ACC-2,MRN-1,20240105", "study", "b1"),
    ],
)
def test_each_way_to_name_a_scan(
    settings: Settings,
    scans: Scans,
    catalogue: Catalogue,
    write: Write,
    header: str,
    line: str,
    level: str,
    scan: str,
) -> None:
    report = import_labels(write(f"{header},label", f"{line},abnormal"), settings)
    assert (report.rows, report.added, report.problems) == (1, 1, ())
    assert _subjects(catalogue) == [(level, getattr(scans[scan], f"{level}_id"), "abnormal")]


@pytest.mark.parametrize(
    ("header", "line", "reason"),
    [
        ("StudyInstanceUID", "9.9.9", "no study with these identifiers"),
        ("SOPInstanceUID", "9.9.9", "SOPInstanceUID is not in the catalogue"),
        ("SeriesInstanceUID", "9.9.9", "SeriesInstanceUID is not in the catalogue"),
        ("PatientID,StudyDate", "MRN-1,20240105", "2 studies have these identifiers"),
        ("PatientID,StudyDate", "MRN-1,05/01/2024", "its StudyDate"),
        ("PatientID,StudyDate", "MRN-1,", "no StudyDate"),
        ("StudyInstanceUID,AccessionNumber", "1.1,ACC-2", "no study with these identifiers"),
        ("SOPInstanceUID,StudyInstanceUID", "1.1.1.1,1.2", "contradict each other"),
        ("SOPInstanceUID,SeriesInstanceUID", "1.1.1.1,1.2.1", "contradict each other"),
        ("StudyInstanceUID", "   ", "no identifier"),
    ],
)
def test_a_line_without_one_meaning_is_reported_with_its_number(
    settings: Settings, scans: Scans, catalogue: Catalogue, write: Write, header: str, line: str, reason: str
) -> None:
    first = "2.1" + "," * header.count(",") if header.startswith("Study") else None
    lines = [f"{header},label", *([f"{first},normal"] if first else []), f"{line},normal"]
    report = import_labels(write(*lines), settings)
    assert report.added == (1 if first else 0) and report.rows == len(lines) - 1
    assert len(report.problems) == 1 and report.problems[0].line == len(lines)
    assert reason in report.problems[0].reason


def test_problems_show_no_identifier(settings: Settings, scans: Scans, write: Write) -> None:
    path = write("PatientID,StudyDate,SOPInstanceUID,label", "PLANTED^NAME,20240105,,normal", "PLANTED^NAME,,,odd")
    report = import_labels(path, settings)
    assert len(report.problems) == 2 and "PLANTED" not in json.dumps(asdict(report)) + repr(report)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("label", "healthy", "its label"),
        ("label", "", "its label"),
        ("date", "01/02/2024", "its date"),
        ("date", "2024-02-30", "its date"),
        ("date", "2024-W051", "its date"),
        ("official_set", "holdout", "official_set"),
        ("relative_position", "1.5", "relative_position"),
        ("relative_position", "nan", "relative_position"),
        ("relative_position", "middle", "relative_position"),
        ("source", "x" * 65, "source has 65 characters"),
        ("image_is_subject", "maybe", "image_is_subject"),
    ],
)
def test_a_bad_value_refuses_its_line_only(
    settings: Settings, scans: Scans, write: Write, column: str, value: str, reason: str
) -> None:
    fields = {"StudyInstanceUID": "2.1", "label": "normal"} | {column: value}
    good = {**fields, column: "normal" if column == "label" else ""}
    path = write(",".join(fields), ",".join(fields.values()), ",".join(good.values()))
    report = import_labels(path, settings)
    assert report.added == 1 and len(report.problems) == 1 and reason in _reasons(report)[0]


def test_values_are_kept_in_one_spelling(settings: Settings, catalogue: Catalogue, scans: Scans, write: Write) -> None:
    header = "Study Instance UID,LABEL,source,reader,date,official split,relative_position"
    import_labels(write(header, '2.1,Normal,"report, signed",Dr B,20240302,val,0.25'), settings)
    row = list_labels(catalogue)[0]
    assert (row["label"], row["source"], row["reader"], row["date"]) == (
        "normal",
        "report, signed",
        "Dr B",
        "2024-03-02",
    )
    assert (row["official_set"], row["relative_position"], row["mask"]) == ("validate", 0.25, False)


def test_importing_again_adds_nothing_and_a_new_row_is_appended(
    settings: Settings, catalogue: Catalogue, scans: Scans, write: Write
) -> None:
    lines = ["StudyInstanceUID,label,date", "2.1,normal,2024-03-02", "1.1,abnormal,", "2.1,normal,2024-03-02"]
    first = import_labels(write(*lines), settings)
    again = import_labels(write(*lines), settings)
    assert (first.added, first.unchanged, again.added, again.unchanged) == (2, 1, 0, 3)
    import_labels(write("StudyInstanceUID,label,date", "2.1,abnormal,2024-03-09"), settings)
    old = import_labels(write(*lines), settings)
    assert (old.added, old.unchanged, old.superseded) == (0, 3, 2)
    assert [label for *_, label in _subjects(catalogue)] == [
        "normal",
        "abnormal",
        "abnormal",
    ]  # nothing was overwritten


def test_images_that_are_their_own_subjects_are_marked(
    settings: Settings, catalogue: Catalogue, scans: Scans, write: Write
) -> None:
    import_labels(write("SOPInstanceUID,label,image_is_subject", "2.1.1.1,normal,1", "1.1.1.1,normal,"), settings)
    with catalogue.reading() as session:
        rows = session.execute(select(Patient.patient_id, Patient.image_is_subject)).all()
    marked = {patient for patient, flag in rows if flag}
    assert marked == {scans["c1"].patient_id}


def test_no_identifier_enters_the_catalogue(settings: Settings, scans: Scans, write: Write) -> None:
    import_labels(write("StudyInstanceUID,PatientID,StudyDate,label", "2.1,MRN-2,20240301,normal"), settings)
    database = sqlite3.connect(settings.workspace / "catalogue.db")
    text = "\n".join(database.iterdump())
    database.close()
    assert scans["c1"].study_id in text
    assert "MRN-" not in text and "'2.1'" not in text and "20240301" not in text


def test_labels_survive_a_rotation(settings: Settings, catalogue: Catalogue, scans: Scans, write: Write) -> None:
    path = write("SOPInstanceUID,label", "2.1.1.1,normal")
    import_labels(path, settings)
    rotate(settings)
    assert import_labels(path, settings).unchanged == 1
    assert len(list_labels(catalogue)) == 1 and list_labels(catalogue)[0]["subject"] != scans["c1"].instance_id


def test_add_label_appends_once(catalogue: Catalogue, scans: Scans) -> None:
    with catalogue.session() as session:
        assert add_label(session, "series", scans["a1"].series_id, "normal", source="t")
        assert not add_label(session, "series", scans["a1"].series_id, "normal", source="t")
        assert add_label(session, "series", scans["a1"].series_id, "normal", source="u")
        with pytest.raises(ConfigError, match="level"):
            add_label(session, "hospital", "x", "normal", source="t")
    assert len(list_labels(catalogue)) == 2


def test_many_lines_cross_the_chunks(settings: Settings, catalogue: Catalogue, scans: Scans, write: Write) -> None:
    lines = [f"2.1,normal,reader {number}" for number in range(1203)]
    report = import_labels(write("StudyInstanceUID,label,reader", *lines), settings)
    assert report.added == 1203 and len(list_labels(catalogue)) == 1203
    assert import_labels(write("StudyInstanceUID,label,reader", *lines), settings).added == 0
