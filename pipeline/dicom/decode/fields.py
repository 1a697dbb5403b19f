"""Typed access to the elements of a data set; absent and malformed differ.

Errors quote numbers and code strings, never text: it may be PHI.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from pipeline.errors import Rejected, RejectionCode

CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 6.2, VR CS
_MEANING = {
    **{"DS": "decimal numbers of at most 16 characters", "IS": "whole numbers of at most 12 digits"},
    **{"UI": "a UID", "CS": "a code of capitals, digits, blanks and underscores", "SQ": "a sequence of items"},
    **{"US": "unsigned 16-bit numbers", "SS": "signed 16-bit numbers", "FD": "64-bit floats", "FL": "32-bit floats"},
}
_IS_LIMIT = 2**31
_SIZED = (str, bytes, Sequence)
_SINGLE = (str, bytes, int, float)
_TEXT = frozenset({"AS", "CS", "DA", "DS", "IS", "LO", "PN", "SH", "UI"})
MODEL_NAME = re.compile(r"[A-Za-z0-9 ._+/()-]{1,64}")  # a restricted LO: no caret, so it cannot be a DICOM person name


def _plain_text(element: RawDataElement) -> str | list[str] | None:
    """Return the text of an element that is still raw bytes, or None where only pydicom can decode it.

    Three quarters of an image's elements are ASCII text, and pydicom takes ten times as long to validate each of them.
    An escape character switches to another character set (PS3.5 6.1.2.5), so such values are left to pydicom.
    """
    value = element.value
    if not value or (element.VR or _vr(element.tag)) not in _TEXT or not value.isascii() or b"\x1b" in value:
        return None
    text = value.decode("ascii")
    return [part.strip(" \0") for part in text.split("\\")] if "\\" in text else text.strip(" \0")


@cache
def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag)


class _Key(BaseTag):
    """A tag that a dictionary compares as the integer that it is; `BaseTag` compares in Python, thrice as slowly."""

    __eq__ = int.__eq__
    __ne__ = int.__ne__
    __lt__ = int.__lt__
    __le__ = int.__le__
    __gt__ = int.__gt__
    __ge__ = int.__ge__
    __hash__ = int.__hash__


@cache
def tag_of(keyword: str) -> BaseTag:
    """Return the tag of a keyword; pydicom searches its dictionary each time that it is given a keyword."""
    return _Key(Tag(keyword))


def has(ds: Dataset, keyword: str) -> bool:
    """Whether the data set has an element, which may be empty."""
    return tag_of(keyword) in ds._dict


def read_value(ds: Dataset, keyword: str) -> Any:
    """Return the value of an element, or None where it is absent or empty.

    Raises:
        Rejected: CORRUPT_HEADER, the element cannot be read as its VR requires.
    """
    tag = tag_of(keyword)
    try:
        # A header has a hundred reads, and `Dataset.__contains__` and `get_item` take ten times as long as a look-up.
        element = ds._dict.get(tag)
        if element is None:
            return None
        if type(element) is RawDataElement:
            plain = _plain_text(element)
            if plain is not None:
                return plain or None
            element = ds[tag]
        value = element.value
    except Rejected:
        raise
    except (MemoryError, RecursionError):
        raise
    except Exception:  # pydicom raises many types for malformed values, and their texts quote the value
        raise malformed(keyword) from None
    if value is None or type(value) is int:
        return value
    return None if isinstance(value, _SIZED) and len(value) == 0 else value


def malformed(keyword: str, rule: str = "") -> Rejected:
    """Return the rejection of an element whose value breaks its VR or `rule`, which may quote a number but no text."""
    vr = dictionary_VR(keyword)
    rule = rule or f"it must be {_MEANING.get(vr, 'a valid value')} ({vr}, PS3.5 6.2)"
    return Rejected(
        RejectionCode.CORRUPT_HEADER,
        f"{keyword} is malformed: {rule}. Correct the element at its source.",
    )


def read_text(ds: Dataset, keyword: str) -> str:
    """Return an element as one trimmed string, several values joined by a backslash, "" where it is absent.

    NUL is not allowed in any text VR (PS3.5 6.1.3). SQLite can store it but PostgreSQL cannot, so it is removed.
    """
    return _joined(ds, keyword).replace("\0", "")


def read_identifier(ds: Dataset, keyword: str, required: bool = False) -> str:
    """Return an element that identifies a person or object, "" where absent, or malformed and not `required`.

    Raises:
        Rejected: CORRUPT_HEADER, it contains a NUL. Removing it might turn it into another identifier.
    """
    try:
        value = _joined(ds, keyword)
    except Rejected:
        if required:
            raise
        return ""
    if "\0" in value:
        raise malformed(keyword, "an identifier may contain NUL only as padding")
    return value


def _joined(ds: Dataset, keyword: str) -> str:
    value = read_value(ds, keyword)
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip(" \0")
    parts = value if isinstance(value, Sequence) and not isinstance(value, bytes) else [value]
    return "\\".join(str(part).strip(" \0") for part in parts)


def read_texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of an element as trimmed strings."""
    joined = read_text(ds, keyword)
    return tuple(joined.split("\\")) if joined else ()


def read_optional_text(ds: Dataset, keyword: str) -> str:
    """Like `read_text`, for elements that nothing depends on: a malformed element counts as absent."""
    try:
        return read_text(ds, keyword)
    except Rejected:
        return ""


def read_code(ds: Dataset, keyword: str) -> str:
    """Return a code string, "" where it is absent or not a valid CS, so that free text does not pass as a code."""
    value = read_optional_text(ds, keyword).upper()
    return value if CODE_STRING.fullmatch(value) else ""


def read_numbers(ds: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """Return finite numbers, or None where they are absent.

    Raises:
        Rejected: CORRUPT_HEADER, not numbers, not finite, or not `count` of them.
    """
    value = read_value(ds, keyword)
    if value is None:
        return None
    items = value if not isinstance(value, _SINGLE) and isinstance(value, Sequence) else (value,)
    try:
        values = tuple(map(float, items))
    except (TypeError, ValueError, OverflowError):
        raise malformed(keyword) from None
    if not all(map(math.isfinite, values)):
        raise malformed(keyword, f"it is {next(v for v in values if not math.isfinite(v))}, and numbers must be finite")
    if count is not None and len(values) != count:
        raise malformed(keyword, f"it must hold {count} values and holds {len(values)}")
    return values


def read_number(ds: Dataset, keyword: str) -> float | None:
    """Return one finite number, or None where it is absent."""
    values = read_numbers(ds, keyword, 1)
    return None if values is None else values[0]


def read_spare_number(
    ds: Dataset,
    keyword: str,
    ignored: list[str],
    whole: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> float | None:
    """Return a number that an image can do without.

    One that is malformed or not `within` limits counts as absent, and `ignored` gets its name.
    """
    try:
        value = read_integer(ds, keyword) if whole else read_number(ds, keyword)
        if value is None or within[0] <= value <= within[1]:
            return value
    except Rejected:
        pass
    ignored.append(keyword)
    return None


def read_integer(ds: Dataset, keyword: str) -> int | None:
    """Return one whole number, or None where it is absent."""
    value = read_number(ds, keyword)
    if value is not None and value != int(value):
        raise malformed(keyword, f"it is {value:g} and must be a whole number")
    if value is not None and abs(value) >= _IS_LIMIT and _vr(tag_of(keyword)) == "IS" and value != -_IS_LIMIT:
        raise malformed(keyword, f"it is {value:g} and must lie in {-_IS_LIMIT} to {_IS_LIMIT - 1} (IS, PS3.5 6.2)")
    return None if value is None else int(value)


def require_integer(ds: Dataset, keyword: str, low: int, high: int) -> int:
    """Return a whole number in [low, high].

    Raises:
        Rejected: MISSING_ATTRIBUTE or CORRUPT_HEADER.
    """
    value = read_integer(ds, keyword)
    if value is None:
        raise Rejected(
            RejectionCode.MISSING_ATTRIBUTE,
            f"{keyword} is missing, and no image can be read without it. Export the complete image.",
        )
    if not low <= value <= high:
        raise malformed(keyword, f"it is {value} and must lie in {low} to {high}")
    return value


def read_items(ds: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence, or nothing where it is absent."""
    value = read_value(ds, keyword)
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise malformed(keyword, "it must be a sequence")
    return value


def read_first_item(ds: Dataset | None, keyword: str) -> Dataset | None:
    """Return the first item of a sequence, or None where the sequence is absent or empty."""
    sequence = read_items(ds, keyword) if ds is not None else ()
    return sequence[0] if sequence else None


def read_private_integer(ds: Dataset, tag: tuple[int, int]) -> int | None:
    """Return the first number of a private element, None where it is absent or unreadable: it may hold anything."""
    try:
        value: Any = ds[tag].value if tag in ds else None
        if isinstance(value, bytes):  # UN, since implicit VR does not say what it is: text (IS) or a short (US)
            text = value.strip(b" \0")
            return int(text) if text.isdigit() else int.from_bytes(value[:2], "little")
        return int(value) if isinstance(value, int | float | str) else int(value[0])
    except Exception:
        return None
