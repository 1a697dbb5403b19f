"""Values of a label line, checked and in one spelling: label, source, date, official set, position."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, cast

from pipeline.data.labels.label_csv import LabelLine
from pipeline.dicom.wrap.label_table import OFFICIAL_SETS, parse_relative_position
from pipeline.errors import NightreadError
from pipeline.types import Label

_TRUTH = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_LONGEST = 64
_TIME = r"([ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)?"  # spreadsheets add 00:00:00
_DATES = tuple(
    re.compile(form + _TIME, re.ASCII)
    for form in (
        r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
        r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
        r"(?P<year>\d{4})\.(?P<month>\d{2})\.(?P<day>\d{2})",
        r"(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4})",
    )
)
DEFAULT_SOURCE = "csv"


class BadValue(NightreadError):
    """A value of a label line is not allowed in its column."""


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The checked values of a line; `mask` is still a file name."""

    label: Label
    source: str = DEFAULT_SOURCE
    reader: str = ""
    labelled_on: str = ""
    official_set: Literal["", "train", "validate", "test"] = ""
    relative_position: float | None = None
    mask: str = ""
    image_is_subject: bool = False


def check_label_values(line: LabelLine) -> LabelValues:
    """Check a line's values.

    Raises:
        BadValue: the message gives column and rule, and never a value that could identify anyone.
    """
    label = line["label"].lower()
    if label not in ("normal", "abnormal", "unknown"):
        raise BadValue("its label must be normal, abnormal or unknown")
    return LabelValues(
        label=cast(Label, label),
        source=_short(line, "source") or DEFAULT_SOURCE,
        reader=_short(line, "reader"),
        labelled_on=iso_date(line["date"], "date"),
        official_set=_choice(line, "official_set", OFFICIAL_SETS),
        relative_position=_position(line["relative_position"]),
        mask=line["mask"],
        image_is_subject=_choice(line, "image_is_subject", _TRUTH),
    )


def iso_date(text: str, column: str) -> str:
    """Return YYYY-MM-DD from YYYY-MM-DD, YYYYMMDD or DD.MM.YYYY, with or without a time; "" stays "".

    Raises:
        BadValue: it has another form, or the day does not exist. With slashes the order of day and month differs from
            country to country, and it is never guessed.
    """
    if not text:
        return ""
    for form in _DATES:
        if match := form.fullmatch(text):
            try:
                return date(*(int(match[part]) for part in ("year", "month", "day"))).isoformat()
            except ValueError:
                break
    raise BadValue(f"its {column} is not a date of the form YYYY-MM-DD, YYYYMMDD or DD.MM.YYYY")


def _short(line: LabelLine, column: str) -> str:
    if len(line[column]) > _LONGEST:
        raise BadValue(f"its {column} has {len(line[column])} characters; at most {_LONGEST} are allowed")
    return line[column]


def _choice(line: LabelLine, column: str, allowed: Mapping[str, Any]) -> Any:
    value = line[column].lower()
    if value not in allowed:
        raise BadValue(f"its {column} must be one of {', '.join(sorted(filter(None, allowed)))}")
    return allowed[value]


def _position(text: str) -> float | None:
    try:
        return parse_relative_position(text)
    except ValueError:
        raise BadValue("its relative_position is not a number from 0 to 1") from None
