"""Truth about signals: a CSV file that says what each stretch of a recording is.

    SOPInstanceUID   the recording; a real identifier, so the file stays on the identified side, like a label table
    first, last      seconds from the beginning of the recording
    unit             what is said, or shown, in between

Columns may be in any order. Rows of recordings that are not among the images are left out.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Settings
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import ConfigError

COLUMNS = ("SOPInstanceUID", "first", "last", "unit")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a recording, seconds."""

    first: float
    last: float
    unit: str


Truth = Mapping[str, Sequence[Stretch]]


def read_truth(path: Path, settings: Settings) -> Truth:
    """Read the stretches of each recording, by the pseudonym of its instance.

    Raises:
        ConfigError: the file is missing, lacks a column, or holds a time that is not one. No identifier is quoted.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file, Pseudonyms.open(settings) as pseudonyms:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise ConfigError(f"The truth lacks the columns {', '.join(missing)}. It needs {', '.join(COLUMNS)}.")
            truth: dict[str, list[Stretch]] = defaultdict(list)
            for number, row in enumerate(reader, start=2):
                truth[pseudonyms.instance(row["SOPInstanceUID"])].append(_stretch(row, number))
    except OSError as error:
        raise ConfigError(
            f"The truth of the signals cannot be read ({error.strerror}). Set `truth` to a CSV file, or to null."
        ) from None
    return truth


def _stretch(row: Mapping[str, str], number: int) -> Stretch:
    try:
        first, last = float(row["first"]), float(row["last"])
    except (TypeError, ValueError):
        raise ConfigError(f"Line {number} of the truth has no times: first and last must be seconds.") from None
    if not 0 <= first < last:
        raise ConfigError(f"Line {number} of the truth runs from {first} to {last} s: first must be below last.")
    return Stretch(first, last, row["unit"] or "")


def frames_of(stretch: Stretch, rate_hz: float, count: int) -> slice:
    """Return the frames whose middle lies in a stretch, of `count` frames at this rate."""
    first, last = (min(max(round(time * rate_hz), 0), count) for time in (stretch.first, stretch.last))
    return slice(first, last)


def units_by_frame(stretches: Sequence[Stretch], rate_hz: float, count: int) -> list[str]:
    """Return the unit of each frame, "" where the truth says nothing."""
    named = [""] * count
    for stretch in stretches:
        part = frames_of(stretch, rate_hz, count)
        named[part] = [stretch.unit] * (part.stop - part.start)
    return named
