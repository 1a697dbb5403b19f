"""Label table: the one CSV format in which labels, masks and official splits accompany DICOM files.

Phantoms and `nightread wrap` write it, a hospital may write it by hand, and `nightread labels import` reads it. A row
labels one visit, study or instance; the most specific identifier that is filled in decides the level:

    SOPInstanceUID        the instance (one slice, or one multi-frame object)
    StudyInstanceUID      the study; or AccessionNumber; or PatientID + StudyDate
    label                 normal | abnormal | unknown
    source, reader, date  who gave the label, and when (YYYY-MM-DD); free of patient identity
    official_set          train | validate | test where the data set has an official split, else empty
    relative_position     0..1 along the series where the data set gives it, else empty
    mask                  file of the exact lesion mask, relative to the table; instance rows only: PNG [H, W] with
                          non-zero = lesion, or npz with the member `mask` [F, H, W]
    image_is_subject      1 where the patient id is unknown, so that each image is a subject of its own; else empty

Columns may be in any order, and all but `label` are optional. The table holds real identifiers, so it stays with the
DICOM files, on the identified side.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline import durable
from pipeline.types import Label


@dataclass(frozen=True, slots=True)
class LabelTableRow:
    """One row; every field is text as in the file. `repr` shows only the label, because the rest may identify."""

    label: Label
    StudyInstanceUID: str = ""
    SOPInstanceUID: str = ""
    AccessionNumber: str = ""
    PatientID: str = ""
    StudyDate: str = ""
    source: str = ""
    reader: str = ""
    date: str = ""
    official_set: str = ""
    relative_position: str = ""
    mask: str = ""
    image_is_subject: str = ""

    def __repr__(self) -> str:
        return f"LabelTableRow({self.label})"


# Names of the official sets in data sets -> our names.
OFFICIAL_SETS: dict[str, str] = {
    "": "",
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "val", "valid", "validation", "dev"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def parse_relative_position(text: str) -> float | None:
    """Return the number from 0 to 1 in `text`, or None where `text` is empty.

    Raises:
        ValueError: `text` is not such a number; the caller adds the place.
    """
    if not text:
        return None
    value = float(text)
    if not 0 <= value <= 1:  # true for NaN too
        raise ValueError(text)
    return value


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(LabelTableRow))


def write_label_table(path: Path, rows: Iterable[LabelTableRow]) -> Path:
    """Write `rows` as CSV (UTF-8, header line), replacing the file in one step; return `path`."""
    with durable.writing(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path
