"""Codes and names of an image that may enter the catalogue: defined terms, and free words that name no person.

An element with defined terms is held to them, word by word: another word may be a name that somebody typed there. An
element without any (model, kernel, the later values of Image Type) loses a value with a word of this patient's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pydicom.dataset import Dataset

from pipeline.dicom.decode import vendors
from pipeline.dicom.decode.anatomy import BODY, VIEWS
from pipeline.dicom.decode.fields import (
    MODEL_NAME,
    read_code,
    read_first_item,
    read_optional_text,
    read_text,
    read_texts,
)
from pipeline.dicom.decode.persons import clean
from pipeline.dicom.decode.vocabulary import OTHER, VIEW_CODES

_WORD = re.compile(r"[^A-Z0-9]+")
# Conversion Type (0008,0064), PS3.3 C.8.6.1; Image Type (0008,0008), values 1 and 2, PS3.3 C.7.6.1.1.2 and C.8.16.1.
_CONVERSIONS = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"})
_TYPES = frozenset({"ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY"})


def is_body_part(value: str) -> bool:
    """Return whether a body part enters the catalogue: it has no other words than those of anatomy."""
    return BODY.allows(value.upper())


def is_view(value: str) -> bool:
    """Return whether a view enters the catalogue: it has no other words than those of projections."""
    return VIEWS.allows(value.upper())


def read_model(ds: Dataset, keyword: str, personal: frozenset[str]) -> str:
    """Return the name of a maker, model or kernel, which is free text of few characters."""
    value = read_optional_text(ds, keyword).replace("\\", "/")
    return clean(value, personal) if MODEL_NAME.fullmatch(value) else ""


def read_body_part(ds: Dataset, personal: frozenset[str]) -> str:
    """Return the words of Body Part Examined that are those of anatomy."""
    return clean(BODY.hold(read_code(ds, "BodyPartExamined")), personal, terms_only=True)


def read_view(ds: Dataset, personal: frozenset[str]) -> str:
    """Return the words of View Position that are those of projections; without one, the view's code."""
    position = read_code(ds, "ViewPosition")
    item = None if position else read_first_item(ds, "ViewCodeSequence")
    coded = VIEW_CODES.get(read_text(item, "CodeValue"), "") if item is not None else ""
    return clean(VIEWS.hold(position), personal, terms_only=True) or coded


def read_laterality(ds: Dataset) -> str:
    """Return the side: L, R, B, U, or "" where neither the image nor the series has a valid one."""
    value = read_code(ds, "ImageLaterality") or read_code(ds, "Laterality")
    return value if value in ("L", "R", "B", "U") else ""


def read_conversion(ds: Dataset) -> str:
    """Return Conversion Type; another term than the defined ones becomes `OTHER`, as the image was converted."""
    value = read_code(ds, "ConversionType")
    return value if value in _CONVERSIONS or not value else OTHER


def read_image_type(ds: Dataset, personal: frozenset[str]) -> tuple[str, ...]:
    """Return Image Type in capitals: the first two values as defined, the later ones, which makers define, cleaned."""
    return hold_image_type(read_texts(ds, "ImageType"), personal)


def hold_image_type(values: Sequence[str], personal: frozenset[str]) -> tuple[str, ...]:
    """Return the values of an Image Type or Frame Type by the rules of `read_image_type`."""
    first, later = values[:2], values[2:]
    held = [_held_type(value.upper()) for value in first]
    names = frozenset(word for word in personal - vendors.CODE_WORDS if not _LOCALISER.fullmatch(word))
    return tuple(filter(None, (*held, *(clean(value.upper(), names) for value in later))))


@lru_cache(maxsize=1024)
def _held_type(value: str) -> str:
    """Return a defined first or second value, of one that names a localiser the words that do, otherwise `OTHER`."""
    if not value or value in _TYPES:
        return value
    words = [word for word in _WORD.split(value) if _LOCALISER.fullmatch(word)]
    if words:
        return " ".join(words)
    return "LOCALIZER" if any(part in value for part in vendors.LOCALISER_PARTS) else OTHER


_LOCALISER = re.compile(
    rf"{'|'.join(vendors.LOCALISER_WORDS)}"
    rf"|(?:{'|'.join(vendors.LOCALISER_PARTS)})(?:S|E|ERS?|ED|ATION|ATOR|ATEUR|IERUNG|PE|PH|PHY|PHIE|M|MM|MS|ME|MA|FIA)?"
)
