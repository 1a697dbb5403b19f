"""Read label files as hospitals write them, with various spellings of columns and malformed lines.

The columns are those of `pipeline.dicom.wrap.label_table`, plus SeriesInstanceUID and IssuerOfPatientID; case, blanks
and underscores are ignored. Messages name lines and columns, never a value of an identifying column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.wrap.csv_lines import BadCsvLine, plain_name, read_good_csv_lines, wrong_length
from pipeline.dicom.wrap.label_table import COLUMNS
from pipeline.errors import ConfigError

IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
_COLUMNS = (*COLUMNS, "SeriesInstanceUID", "IssuerOfPatientID")
_ALSO = {"officialsplit": "official_set", "split": "official_set", "labelledon": "date", "labeldate": "date"}


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
class IgnoredColumns:
    """Columns of the file that are not of a label table; `names` are printed, so they hold no value of a line."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """A line that was not used, with the reason, which contains no value of the line."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def read_label_csv(path: Path) -> Iterator[LabelLine | LabelProblem | IgnoredColumns]:
    """Yield the lines in order; a line with a wrong number of fields is a problem, blank lines are skipped.

    Columns that are not of a label table are yielded first, as one item, and then ignored.

    Raises:
        ConfigError: the file cannot be read, is not a label table, or has repeated or missing columns.
    """
    lines = read_good_csv_lines(path, "label file")
    start = next(lines, (0, []))
    header = [] if isinstance(start, BadCsvLine) else start[1]
    columns = _columns(header)
    ignored = [name.strip()[:40] for name, column in zip(header, columns, strict=True) if not column and name.strip()]
    if ignored:
        yield IgnoredColumns(tuple(ignored))
    for line in lines:
        yield LabelProblem(line.number, line.reason) if isinstance(line, BadCsvLine) else _line(*line, columns)


def _line(number: int, fields: list[str], columns: list[str]) -> LabelLine | LabelProblem:
    while len(fields) > len(columns) and not fields[-1].strip():
        fields = fields[:-1]  # spreadsheets end every line with the delimiters of empty columns
    if problem := wrong_length(fields, columns):
        return LabelProblem(number, problem)
    given = zip(columns, fields, strict=True)
    return LabelLine(number, {name: value.strip(" \t\0\xa0") for name, value in given if name})


def _columns(header: list[str]) -> list[str]:
    """Return the column of each field, "" for one that is ignored."""
    if not any(name.strip() for name in header):
        raise ConfigError(f"The label file has no header line. Its first line must name columns: {_expected()}.")
    names = {plain_name(name): name for name in _COLUMNS} | _ALSO
    unknown = [name.strip()[:40] for name in header if plain_name(name) not in names]
    if len(unknown) == len(header):  # not quoted: without a header, the first line holds a patient's data
        raise ConfigError(
            f"The first line of the label file names no known column. It must name columns: {_expected()}."
        )
    columns = [names.get(plain_name(name), "") for name in header]
    double = sorted({name for name in columns if name and columns.count(name) > 1})
    if double:
        raise ConfigError(f"The label file has the column {double[0]} twice. Remove one of the two.")
    if "label" not in columns:
        raise ConfigError(
            "The label file has no column `label`. Add it, with normal, abnormal or unknown in each line."
        )
    if not set(columns) & set(IDENTIFIERS):
        raise ConfigError(f"The label file names no scans. Add at least one of the columns {', '.join(IDENTIFIERS)}.")
    return columns


def _expected() -> str:
    return ", ".join(_COLUMNS)
