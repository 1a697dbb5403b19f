"""Label files as hospitals export them: encodings, delimiters, line endings, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from pipeline.data.labels.label_csv import IgnoredColumns, LabelLine, LabelProblem, read_label_csv
from pipeline.data.labels.label_values import BadValue, iso_date
from pipeline.dicom.wrap.label_table import LabelTableRow, write_label_table
from pipeline.errors import ConfigError

Write = Callable[..., Path]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_line_ends_and_delimiters(write: Write, encoding: str, end: str, delimiter: str) -> None:
    lines = [delimiter.join(words) for words in (["label", "AccessionNumber", "reader"], ["normal", "A,1;", "Müller"])]
    lines[1] = delimiter.join(f'"{word}"' for word in ("normal", "A,1;", "Müller"))
    read = list(read_label_csv(write(*lines, "", delimiter * 2, encoding=encoding, end=end)))
    assert len(read) == 1 and isinstance(read[0], LabelLine)
    assert (read[0]["AccessionNumber"], read[0]["reader"], read[0]["mask"]) == ("A,1;", "Müller", "")


def test_line_numbers_are_those_of_the_file(write: Write) -> None:
    read = list(read_label_csv(write("label,PatientID", "normal,1", "", "normal", "normal,2,3", "normal,4")))
    assert [(type(item).__name__, getattr(item, "number", None) or getattr(item, "line", None)) for item in read] == [
        ("LabelLine", 2),
        ("LabelProblem", 4),
        ("LabelProblem", 5),
        ("LabelLine", 6),
    ]
    assert isinstance(read[1], LabelProblem) and "1 fields, but the header has 2" in str(read[1])


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([""], "no header"),
        (["label"], "no scans"),
        (["PatientID,StudyDate"], "`label`"),
        (["label,PatientID,patient_id"], "PatientID twice"),
        (['"label,PatientID', "normal,1"], "valid CSV"),
    ],
)
def test_a_file_that_is_not_a_label_table_is_refused(write: Write, lines: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        list(read_label_csv(write(*lines)))


def test_a_file_without_header_does_not_leak_its_first_line(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        list(read_label_csv(write("PLANTED^NAME,normal")))
    assert "PLANTED" not in str(caught.value)


def test_a_line_that_is_not_csv_is_refused_alone(write: Write) -> None:
    lines = ("label,PatientID", 'normal,"1', 'normal,"2" x', "normal,3", 'normal,"4"')
    items = list(read_label_csv(write(*lines)))
    assert [item.line for item in items if isinstance(item, LabelProblem)] == [2, 3]
    assert [item["PatientID"] for item in items if isinstance(item, LabelLine)] == ["3", "4"]


def test_unknown_columns_are_noted_and_ignored(write: Write) -> None:
    items = list(read_label_csv(write("Befund;label;PatientID; ;Bemerkung", "o.B.;normal;1;x;y", "o.B.;normal;2;;;;")))
    assert items[0] == IgnoredColumns(("Befund", "Bemerkung"))
    assert [dict(item.values) for item in items[1:] if isinstance(item, LabelLine)] == [
        {"label": "normal", "PatientID": "1"},
        {"label": "normal", "PatientID": "2"},
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_excels_own_encoding_and_its_first_line(write: Write, encoding: str) -> None:
    lines = ("sep=;", "label;PatientID;reader", "normal;1;Müller – Große")
    text = lines if encoding == "cp1252" else (*lines[:2], "normal;1;Müller")
    read = [item for item in read_label_csv(write(*text, encoding=encoding)) if isinstance(item, LabelLine)]
    assert read[0]["reader"].startswith("Müller") and read[0]["PatientID"] == "1"


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2025-03-09", "2025-03-09"),
        ("20250309", "2025-03-09"),
        ("09.03.2025", "2025-03-09"),
        ("9.3.2025", "2025-03-09"),
        ("09.03.2025 14:05", "2025-03-09"),
        ("2025-03-09T00:00:00", "2025-03-09"),
        ("2025-03-09 00:00:00.000", "2025-03-09"),
        ("2025.03.09", "2025-03-09"),
        ("", ""),
    ],
)
def test_dates_in_the_forms_of_hospitals(text: str, iso: str) -> None:
    assert iso_date(text, "date") == iso


@pytest.mark.parametrize("text", ["03/09/2025", "9/3/2025", "31.02.2025", "09.03.25", "2025-W10-7", "yesterday"])
def test_a_date_that_could_be_another_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="date"):
        iso_date(text, "date")


def test_other_encodings_and_missing_files_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"UTF-8.*\b2\b"):
        list(read_label_csv(write("label,PatientID,reader", "normal,1,M\0ü", encoding="latin-1")))
    with pytest.raises(ConfigError, match="No such") as caught:
        list(read_label_csv(tmp_path / "PLANTED.csv"))
    assert "PLANTED" not in str(caught.value)


_WORD = st.text(st.characters(blacklist_categories=("Cs", "Cc"), max_codepoint=0x2FFF), max_size=12).map(str.strip)


@budget(deadline=None, max_examples=40)
@given(st.lists(st.tuples(_WORD, _WORD, _WORD), min_size=1, max_size=5))
def test_a_written_label_table_is_read_back(tmp_path_factory: pytest.TempPathFactory, words: list) -> None:
    rows = [LabelTableRow("normal", PatientID="p" + a, reader=b, source=c) for a, b, c in words]
    path = write_label_table(tmp_path_factory.mktemp("table") / "labels.csv", rows)
    items = [item for item in read_label_csv(path) if isinstance(item, LabelLine)]
    read = [(line["PatientID"], line["reader"], line["source"], line["label"]) for line in items]
    assert read == [(row.PatientID.strip(), row.reader, row.source, "normal") for row in rows]
