"""Words of a data set that name a person, or number one, to recognise codes and names that contain one.

Umlauts and accents are folded on both sides, since a console without them writes Müller as MUELLER or MULLER.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from pipeline.dicom.decode import vendors
from pipeline.dicom.decode.fields import read_items, read_optional_text, tag_of
from pipeline.dicom.decode.vocabulary import MODALITIES, TOKENS, VIEW_CODES
from pipeline.errors import Rejected

_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
_OWN_GROUP = 0x0010  # the group of the patient, whose own short names count, too
# Sequences of one item per frame, and the signal itself: long, and without persons.
_LONG = frozenset(
    map(tag_of, ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "WaveformSequence"))
)
_DEEPEST, _MOST_ITEMS = 3, 20
_SHORTEST_JOINED = 5
_SHORTEST_NUMBER = 6  # digits of a number that is looked for among other digits
_LONG_NAME, _MORE_LETTERS = 7, 2  # MAGNETOM is not a person called Magne, but DRMUELLER is Müller
# Not a person called Philip or Siemensma.
_MAKERS = frozenset(
    [
        "PHILIPS",
        "SIEMENS",
        "CANON",
        "TOSHIBA",
        "HITACHI",
        "KODAK",
        "SAMSUNG",
        "FUJIFILM",
        "KONICA",
        "HOLOGIC",
        "SHIMADZU",
    ]
)
_WORD = re.compile(r"[^A-Z0-9]+")
_COMPONENT = re.compile(r"[\\^=]+")
_LETTERS = str.maketrans({"Ø": "O", "Æ": "AE", "Œ": "OE", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "ẞ": "SS"})
_UMLAUT = re.compile("(?<=[AOU])E|(?<=A)A")
# Two letters are a patient's name only where they are not also a code: a type, a weighting, a view or a modality.
_CODES = frozenset(vendors.MAP_TYPES | vendors.PHASE_TYPES | vendors.SPECTRAL_TYPES | MODALITIES | TOKENS.keys()) | (
    frozenset(VIEW_CODES.values())
)
_PLACEHOLDERS = """
PHANTOM TEST PATIENT ANON ANONYM ANONYMOUS ANONYMIZED DEMO DUMMY VOLUNTEER SUBJECT CASE
"""


def fold(text: str) -> str:
    """Return text in capitals without accents, with Ü, UE and U as one, and so for the other umlauts."""
    text = text.upper()
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
        text = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _UMLAUT.sub("", text)


def personal_words(ds: Dataset) -> frozenset[str]:
    """Return the folded words of a data set that name a person: of its person names, and of the patient's numbers.

    Words of the vocabulary, such as Head, count where the patient's name also has another word.
    """
    own, others = _person_names(ds)
    return _words_of(own, others, tuple(_numbers(ds)))


def _numbers(ds: Dataset) -> Iterator[str]:
    """Yield the numbers of the patient and the study, and the birth date in the orders in which it is written."""
    yield from (read_optional_text(ds, name) for name in _NUMBERS)
    try:
        others = read_items(ds, "OtherPatientIDsSequence")
    except Rejected:
        others = ()
    yield from (read_optional_text(item, "PatientID") for item in others)
    born = read_optional_text(ds, "PatientBirthDate").replace(".", "")
    if len(born) == 8:
        year, month, day = born[:4], born[4:6], born[6:]
        yield " ".join((born, f"{day}{month}{year}", f"{month}{day}{year}"))


@lru_cache(maxsize=256)
def _words_of(own: tuple[str, ...], others: tuple[str, ...], numbers: tuple[str, ...]) -> frozenset[str]:
    words = {word for text in (*own, *others, *numbers) for word in _split(text) if len(word) > 2}
    words |= {"".join(_split(text)) for text in numbers if text.strip("0123456789. -/") == ""}
    for text in (*own, *others):
        words |= {squashed for part in _COMPONENT.split(text) if len(squashed := "".join(_split(part))) > 2}
    terms = {word for word in words if word in _FOLDED_TOKENS}
    words -= terms
    for text in own:
        parts = _split(text)
        words |= {part for part in parts if len(part) == 2 and part.isalpha() and part not in _CODES}
        words |= {"".join(parts), "".join(reversed(parts))} if all(len(part) == 2 for part in parts) else set()
        if _is_of_a_person(parts):
            words |= terms.intersection(parts)
    return frozenset(words - {""})


def _is_of_a_person(parts: Sequence[str]) -> bool:
    """Return whether a name has a word besides those of the vocabulary, and neither a number nor a placeholder."""
    if _FOLDED_PLACEHOLDERS.intersection(parts) or not all(map(str.isalpha, parts)):
        return False
    words = [part for part in parts if len(part) > 2 or (len(part) == 2 and part not in _CODES)]
    return any(word not in _FOLDED_TOKENS for word in words)


def _split(text: str) -> list[str]:
    return [word for word in _WORD.split(fold(text)) if word]


_FOLDED_TOKENS = frozenset(map(fold, TOKENS))
_FOLDED_PLACEHOLDERS = frozenset(map(fold, _PLACEHOLDERS.split()))


def clean(value: str, personal: frozenset[str], terms_only: bool = False) -> str:
    """Return a value, "" if one of its words names a person, or is made of such words, as in MUELLERANNA.

    Where a value may hold more than terms (`terms_only`), a name of five letters is recognised also within other
    letters, apart, cut short, or with digits (`DRMUELLER`, `MUEL LER`, `MUELL`, `MUELLER2`), and so are numbers.
    """
    named = bool(value and personal) and (
        _names_person(value, personal) or (not terms_only and _contains_person(value, personal))
    )
    return "" if named else value


@lru_cache(maxsize=4096)
def _names_person(value: str, personal: frozenset[str]) -> bool:
    return any(word in personal or _is_joined(word, personal) for word in _split(value))


@lru_cache(maxsize=4096)
def _contains_person(value: str, personal: frozenset[str]) -> bool:
    words = [word for word in _split(value) if word not in _MAKERS]
    letters = [word.strip("0123456789") for word in words]
    if any(len(word) > 2 and word in personal for word in letters):
        return True
    joined, digits = "".join(letters), "".join(filter(str.isdigit, "".join(words)))
    cut = [word for word in letters if len(word) >= _SHORTEST_JOINED and word not in _FOLDED_TOKENS]
    for one in personal:
        if one.isdigit():
            if len(one) >= _SHORTEST_NUMBER and one in digits:
                return True
        elif len(one) >= _SHORTEST_JOINED:
            close = len(one) >= _LONG_NAME or len(joined) <= len(one) + _MORE_LETTERS
            if (close and one in joined) or any(map(one.startswith, cut)):
                return True
    return False


def _is_joined(word: str, personal: frozenset[str]) -> bool:
    """Return whether a word of five letters or more is made of personal words.

    Each place is reached once, so that a name of equal letters costs no more than another one.
    """
    if len(word) < _SHORTEST_JOINED or not word.isalpha():
        return False
    reached = [True] + [False] * len(word)
    for start in (place for place in range(len(word)) if reached[place]):
        for part in personal:
            if word.startswith(part, start):
                reached[start + len(part)] = True
    return reached[-1]


def _person_names(ds: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patient's names and those of others: all elements of VR PN, also within sequences."""
    own, others = dict[str, None](), dict[str, None]()
    for group, text in _names_within(ds, 0):
        (own if group == _OWN_GROUP else others)[text] = None
    return tuple(own), tuple(others)


def _names_within(ds: Dataset, depth: int) -> Iterator[tuple[int, str]]:
    for tag, element in tuple(ds._dict.items()):
        vr = element.VR or _vr_of(int(tag))
        if vr == "PN":
            yield tag >> 16, _text(ds, element)
        elif vr == "SQ" and depth < _DEEPEST and tag not in _LONG and _may_name(element):
            for item in _items(ds, element):
                yield from _names_within(item, depth + 1)


def _may_name(element: RawDataElement | DataElement) -> bool:
    """Return whether a sequence may contain a name; where explicit VRs are still raw bytes, they say it."""
    if not isinstance(element, RawDataElement) or element.is_implicit_VR:
        return True
    return b"PN" in (element.value or b"")


def _text(ds: Dataset, element: RawDataElement | DataElement) -> str:
    value = element.value
    if isinstance(value, bytes) and value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip(" \0")
    try:
        value = ds[element.tag].value
    except Exception:  # pydicom raises many types for malformed values
        return ""
    return "\\".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _items(ds: Dataset, element: RawDataElement | DataElement) -> Sequence[Dataset]:
    try:
        value = ds[element.tag].value
        return [item for item in value[:_MOST_ITEMS] if isinstance(item, Dataset)] if value else ()
    except Exception:
        return ()


@cache
def _vr_of(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""
