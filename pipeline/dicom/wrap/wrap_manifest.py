"""Manifest of `nightread wrap`: a CSV with one image or volume per row, read into checked rows.

    file               image, in the manifest's folder or below it: PNG, JPEG, TIFF, NIfTI, npy or npz. Inside npz and
                       npy an array is addressed by member and index: `x.npz::train_images[12]`, `x.npy[3]`
    patient_id         person; empty = unknown, and the image is a subject of its own
    study_id           visit; empty = rows with patient_id and slice_index share one, any other row has its own
    slice_index        position in the series, a whole number from 0; rows of one study that have it form one series
    relative_position  0..1 along the series, where known
    label              normal | abnormal | unknown (also when empty)
    mask               file of the lesion mask, addressed like `file`; non-zero = lesion
    modality           DICOM modality (0008,0060), e.g. MR; empty = the one given to `wrap`
    body_part          BodyPartExamined (0018,0015); sex F, M or O; age in years
    split              train | validate | val | test, as published with the data set

All columns but `file` are optional, and unknown columns are ignored. Case, blanks and underscores of names are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline.dicom.wrap.csv_lines import plain_name, read_csv_lines, wrong_length
from pipeline.dicom.wrap.label_table import OFFICIAL_SETS, parse_relative_position
from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.types import Label

_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
_LONGEST_ID = 64  # LO and the like (PS3.5 6.2)


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One checked row. `number` is its line in the file (the header is line 1), and all that `repr` shows."""

    number: int
    file: str = field(repr=False)
    patient_id: str = field(default="", repr=False)
    study_id: str = field(default="", repr=False)
    slice_index: int | None = field(default=None, repr=False)
    relative_position: str = field(default="", repr=False)
    label: Label = field(default="unknown", repr=False)
    mask: str = field(default="", repr=False)
    modality: str = field(default="OT", repr=False)
    body_part: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    age: int | None = field(default=None, repr=False)
    split: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RowRejection:
    """A row that was not wrapped: its line number, the code, and a sentence without paths or identifiers."""

    number: int
    code: RejectionCode
    sentence: str


def bad_row(sentence: str) -> Rejected:
    """Return the rejection of a row that breaks the manifest's rules."""
    return Rejected(RejectionCode.MANIFEST_ROW, sentence)


def read_manifest(path: Path, modality: str) -> Iterator[ManifestRow | RowRejection]:
    """Yield the rows of a manifest in order, bad ones as rejections.

    Args:
        modality: for rows that name none.

    Raises:
        ConfigError: the file cannot be read, is not text, lacks the column `file`, or has a column twice.
    """
    lines = read_csv_lines(path, "manifest")
    columns = _columns(next(lines, (0, []))[1])
    for number, row_fields in lines:
        if problem := wrong_length(row_fields, columns):
            sentence = f"The row cannot be read: {problem}. Correct the row."
            yield RowRejection(number, RejectionCode.MANIFEST_ROW, sentence)
        else:
            yield checked_row(number, dict(zip(columns, row_fields, strict=True)), modality)


def _columns(header: Sequence[str]) -> list[str]:
    """Return the header in our own spelling; unknown columns keep theirs and are ignored."""
    names = {plain_name(one.name): one.name for one in fields(ManifestRow) if one.name != "number"}
    # The leading blank keeps an unknown column from having the name of one of ours.
    columns = [names.get(plain_name(name), f" {name}") for name in header]
    if "file" not in columns:
        raise ConfigError("The manifest has no column `file`. Its first line must name the columns.")
    double = sorted({name for name in columns if columns.count(name) > 1 and name in names.values()})
    if double:
        raise ConfigError(f"The manifest has the column {double[0]} twice. Remove one of the two.")
    return columns


def checked_row(number: int, values: Mapping[str, str], modality: str) -> ManifestRow | RowRejection:
    """Return the row with its values checked, or its rejection."""
    text = {name: value.strip() for name, value in values.items()}
    try:
        return _row(number, text, modality)
    except Rejected as error:
        return RowRejection(number, error.code, error.sentence)


def _row(number: int, text: Mapping[str, str], modality: str) -> ManifestRow:
    if not text.get("file"):
        raise bad_row("The row names no file. Fill in the column `file`.")
    return ManifestRow(
        number=number,
        file=text["file"],
        patient_id=_identifier(text.get("patient_id", ""), "patient_id"),
        study_id=_identifier(text.get("study_id", ""), "study_id"),
        slice_index=_whole(text.get("slice_index", ""), "slice_index", 2**31 - 1),
        relative_position=_position(text.get("relative_position", "")),
        label=_label(text.get("label", "")),
        mask=text.get("mask", ""),
        modality=_code_string(text.get("modality") or modality, "modality"),
        body_part=_code_string(text.get("body_part", ""), "body_part"),
        sex=_one_of(text.get("sex", "").upper()[:1], {"": "", "F": "F", "M": "M", "O": "O"}, "sex", "F, M, O"),
        age=_whole(text.get("age", ""), "age", 130),
        split=_one_of(text.get("split", "").lower(), OFFICIAL_SETS, "split", "train, validate, test"),
    )


def _label(text: str) -> Label:
    names: dict[str, Label] = {"": "unknown", "normal": "normal", "abnormal": "abnormal", "unknown": "unknown"}
    return _one_of(text.lower(), names, "label", "normal, abnormal, unknown")  # type: ignore[return-value]


def _one_of(text: str, allowed: Mapping[str, str], column: str, rule: str) -> str:
    if text not in allowed:
        raise bad_row(f"Column `{column}` must be one of {rule}. Correct it or leave it empty.")
    return allowed[text]


def _identifier(text: str, column: str) -> str:
    if len(text) > _LONGEST_ID or "\\" in text or not text.isprintable():
        raise bad_row(
            f"Column `{column}` is longer than 64 characters or contains a backslash or control character. Change it."
        )
    return text


def _whole(text: str, column: str, highest: int) -> int | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer() or not 0 <= value <= highest:
        raise bad_row(f"Column `{column}` is not a whole number from 0 to {highest}. Correct it or leave it empty.")
    return int(value)


def _position(text: str) -> str:
    try:
        parse_relative_position(text)
    except ValueError:
        raise bad_row("Column `relative_position` is not a number from 0 to 1. Correct it or leave it empty.") from None
    return text


def _code_string(text: str, column: str) -> str:
    upper = text.upper()
    if upper and not _CODE_STRING.fullmatch(upper):
        rule = "at most 16 letters, digits, blanks and underscores (PS3.5 6.2, CS)"
        raise bad_row(f"Column `{column}` is not a code of {rule}. Correct it or leave it empty.")
    return upper
