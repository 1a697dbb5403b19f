"""Reading a label file as hospitals write them: encodings, delimiters, spellings of columns; nothing is guessed at.

The columns are those of `pipeline.dicom.label_table`, and SeriesInstanceUID and IssuerOfPatientID. UTF-8 and UTF-16
with a byte order mark, comma, semicolon, tab or bar, any line ends; column names without regard to case, blanks and
underscores. A message names lines and columns, never a value of an identifying column.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.label_table import COLUMNS
from pipeline.errors import ConfigError

IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
_COLUMNS = (*COLUMNS, "SeriesInstanceUID", "IssuerOfPatientID")
_ALSO = {"officialsplit": "official_set", "split": "official_set", "labelledon": "date", "labeldate": "date"}
_DELIMITERS = ",;\t|"
_LARGEST = 256 * 2**20


@dataclass(frozen=True, slots=True, repr=False)
class LabelLine:
    """One line of the file: its number, and its values by column (blank where the column is missing)."""

    number: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")

    def __repr__(self) -> str:
        return f"LabelLine({self.number})"


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """A line that was not used, and why; no value of the line is in it."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def read_label_csv(path: Path) -> Iterator[LabelLine | LabelProblem]:
    """Yield the lines in order; one whose number of fields is wrong is a problem, blank ones are passed over.

    Raises:
        ConfigError: the file cannot be read, is no such table, or has columns that are unknown, double or too few.
    """
    text = _text(path)
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = _columns(next(reader, []))
        for fields in reader:
            if any(field.strip() for field in fields):
                yield _line(reader.line_num, fields, columns)
    except csv.Error as error:
        raise ConfigError(f"The label file is no valid CSV at line {reader.line_num}: {error}.") from None


def _line(number: int, fields: list[str], columns: list[str]) -> LabelLine | LabelProblem:
    if len(fields) != len(columns):
        return LabelProblem(number, f"it has {len(fields)} fields, and the header has {len(columns)}")
    return LabelLine(number, {name: value.strip(" \t\0") for name, value in zip(columns, fields, strict=True)})


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"The label file is larger than {_LARGEST // 2**20} MiB. Split it.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The label file cannot be read: {error.strerror}. Give an existing CSV file.") from None
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"The label file is not UTF-8 (line {line}). Save it as CSV UTF-8.") from None


def _columns(header: list[str]) -> list[str]:
    if not any(name.strip() for name in header):
        raise ConfigError(f"The label file has no header line. Its first line must name columns: {_expected()}.")
    known = {_plain(name): name for name in _COLUMNS} | _ALSO
    unknown = [name.strip()[:40] for name in header if _plain(name) not in known]
    if len(unknown) == len(header):  # not shown: without a header, the first line is somebody's data
        raise ConfigError(f"No column of the label file's first line is known. It must name columns: {_expected()}.")
    if unknown:
        raise ConfigError(f"The label file has unknown columns: {', '.join(unknown)}. Known ones: {_expected()}.")
    columns = [known[_plain(name)] for name in header]
    double = sorted({name for name in columns if columns.count(name) > 1})
    if double:
        raise ConfigError(f"The label file has the column {double[0]} twice. Remove one.")
    if "label" not in columns:
        raise ConfigError("The label file has no column `label` (normal, abnormal or unknown).")
    if not set(columns) & set(IDENTIFIERS):
        raise ConfigError(f"The label file names no scans: it needs one of the columns {', '.join(IDENTIFIERS)}.")
    return columns


def _expected() -> str:
    return ", ".join(_COLUMNS)


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name).lower()
