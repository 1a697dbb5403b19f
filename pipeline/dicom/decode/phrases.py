"""The words of a series description that say what the pixels are: localiser, spectral, phase or quantity image.

Many of these words also name a reason, a time or a contrast agent: "loss of consciousness" is LOC, "arterial phase
images" are anatomy, and "avec iode" is a plain CT. A word decides only where the words around it do not say so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from pipeline.dicom.decode import vendors
from pipeline.dicom.decode.quantity_units import DIFFUSIVITY, is_quantity

_PURPOSE = frozenset(["STUDY", "TRIAL", "PROTOCOL", "PROJECT", "RESEARCH", "STUDIE", "ETUDE", "ESTUDIO", "STUDIO"])
_MAP = re.compile(r"(?<![A-Z])MAPS?(?![A-Z])")
_ADJACENT_UNIT = re.compile(r"(?<![A-Z])MAPS?\s*[(\[]([^)\]]+)[)\]]|[(\[]([^)\]]+)[)\]]\s*MAPS?(?![A-Z])")
_BRACKETS = re.compile(r"[(\[]([^)\]]+)[)\]]")
_SHARED_UNITS = frozenset({"MS", "S"})  # "(MS)" behind the weighting is multiple sclerosis
_HEAD = re.compile(r"^\(?([A-Z0-9*_. ]+?)\)?\s*:")  # GE names what it computes before the series: "FA: Ax DTI"


def plain(text: str) -> str:
    """Return text in capitals without accents, as consoles of other languages write it."""
    return "".join(char for char in unicodedata.normalize("NFKD", text.upper()) if not unicodedata.combining(char))


def content_tokens(text: str, words: Sequence[str]) -> set[str]:
    """Return the tokens of what the pixels are (SCOUT, MAP, ...) that a `plain` text with these words means."""
    rules: dict[str, Callable[[str, Sequence[str]], bool]] = {
        "SCOUT": _names_scout,
        "SPECTRAL": lambda _, words: _names_spectral(words),
        "PHASE": _names_phase,
        "MAP": _names_map,
    }
    tokens = {token for token, rule in rules.items() if rule(text, words)}
    if not text.isascii():
        tokens |= {token for token, signs in _SIGNS.items() if any(sign in text for sign in signs)}
    pairs = _pairs([word for word in words if word not in vendors.OF])
    if pairs & vendors.DOSE_PAIRS or any(map(vendors.DOSE_WORD.fullmatch, words)):
        tokens.add("DOSE REPORT")
    tokens |= {"CALIBRATION"} if pairs & vendors.CALIBRATION_PAIRS or list(words) == ["SHIM"] else set()
    tokens |= {"CAPTURE"} if pairs & vendors.SCREEN_PAIRS else set()
    return {part for token in tokens for part in token.split()}


_SIGNS = {
    token: [plain(sign) for sign in signs]
    for token, signs in {
        "SCOUT": vendors.LOCALISER_SIGNS,
        "SPECTRAL": vendors.SPECTRAL_SIGNS,
        "PHASE": vendors.PHASE_SIGNS,
        "MAP": vendors.MAP_SIGNS,
        "DOSE REPORT": vendors.DOSE_SIGNS,
    }.items()
}


def _pairs(words: Sequence[str]) -> set[str]:
    """Return the pairs of neighbouring words, without those that name a study's purpose."""
    following = [*words[2:], ""]
    pairs = zip(words, words[1:], following, strict=False)
    return {f"{one} {two}" for one, two, behind in pairs if behind not in _PURPOSE}


def _around(words: Sequence[str], place: int) -> tuple[str, str]:
    return words[place - 1] if place else "", words[place + 1] if place + 1 < len(words) else ""


def _names_scout(text: str, words: Sequence[str]) -> bool:
    if _pairs(words) & vendors.LOCALISER_PAIRS or _watches_bolus(words):
        return True
    several = len(words) > 1 and not vendors.IN_PLANES.search(text)
    for word in words:
        if vendors.LOCALISATION.fullmatch(word) and several:
            continue  # of a lesion, for an operation
        if word in vendors.SHARED_LOCALISER_WORDS:
            if not vendors.NO_LOCALISER.intersection(words) and not _PURPOSE.intersection(words):
                return True
        elif word in vendors.LOCALISER_WORDS or any(part in word for part in vendors.LOCALISER_PARTS):
            return True
    return False


def _watches_bolus(words: Sequence[str]) -> bool:
    """Return whether a series shows a bolus arrive; one "after test bolus" is what is read."""
    for place, word in enumerate(words):
        before, behind = _around(words, place)
        if word in vendors.BOLUS_WORDS or f"{word} {behind}" in vendors.BOLUS_PAIRS:
            return before not in vendors.WITH_CONTRAST
    return words[:1] == ["MONITORING"]


def _names_spectral(words: Sequence[str]) -> bool:
    if any(word in vendors.SPECTRAL_WORDS or word.endswith(vendors.SPECTRAL_END) for word in words):
        return True
    if _pairs(words) & vendors.SPECTRAL_PAIRS:
        return True
    for place, word in enumerate(words):
        before, behind = _around(words, place)
        if (word in vendors.MONO_WORDS and behind.isdigit()) or (word == "VUE" and behind not in vendors.FRENCH_VIEW):
            return True
        if word not in vendors.IODINE_WORDS:
            continue
        agent = before in vendors.WITH_CONTRAST or behind in vendors.ABOUT_CONTRAST or behind.isdigit()
        amount = vendors.AMOUNT.fullmatch(before) or (before in vendors.AMOUNT_UNITS and words[place - 2].isdigit())
        if not agent and not amount:
            return True
    return False


def _names_phase(text: str, words: Sequence[str]) -> bool:
    if head(text) in vendors.PHASE_HEADS or any(part in word for word in words for part in vendors.PHASE_PARTS):
        return True
    for place, word in enumerate(words):
        before, behind = _around(words, place)
        if word in vendors.PHASE_WORDS and before not in vendors.PHASE_TIMES:
            return True
        if word == "PHASE" and before in vendors.PHASE_SEQUENCES and not behind:
            return True
        if (
            word in ("PHASE", "FASE")
            and before in ("DE", "DI", "DA")
            and place > 1
            and words[place - 2] in vendors.PHASE_PICTURES
        ):
            return behind not in vendors.PHASE_TIMES
        if f"{word} {behind}" in vendors.PHASE_IMAGES and before not in vendors.PHASE_TIMES:
            return True
    return bool(_pairs(words) & vendors.PHASE_PAIRS)


def _names_map(text: str, words: Sequence[str]) -> bool:
    if head(text) in vendors.MAP_HEADS or _has_units_of_map(text):
        return True
    if any(word in vendors.MAP_WORDS or vendors.MAP_WORD.fullmatch(word) for word in words):
        return True
    if _ends_in_map(words) or any(word.startswith(vendors.MAP_STEMS) for word in words):
        return True
    if len(words) == 1 and words[0] in vendors.LONE_MAP_WORDS:
        return True
    triples = list(zip(words, words[1:], words[2:], strict=False))
    if any((one, two) == ("TIME", "TO") and three in vendors.TIMES_TO for one, two, three in triples):
        return True
    flip_angles = {f"{one} FA" for one, two, three in triples if two == "FA" and three.isdigit()}
    return bool((_pairs(words) - flip_angles) & vendors.MAP_PAIRS)


def _ends_in_map(words: Sequence[str]) -> bool:
    """Return whether a series is called a map: "z-score map", "mapa T2*", but not "MAP kinase study"."""
    for place, word in enumerate(words):
        behind = words[place + 1 :]
        if word in vendors.MAP_FIRST and (place == 0 or (behind and behind[0] in vendors.OF)):
            return True
        if vendors.MAP_LAST.fullmatch(word) and all(map(vendors.BEHIND_MAP.fullmatch, behind)):
            return len(words) > 1 or word not in ("MAP", "MAPS", "KARTE")
    return False


def head(text: str) -> str:
    """Return the words before the first colon without blanks, "" without a colon."""
    match = _HEAD.match(text.strip())
    return re.sub(r"[^A-Z0-9*]", "", match[1]) if match else ""


def _has_units_of_map(text: str) -> bool:
    """Return whether text has a diffusivity, or the word "map" and the unit of a quantity in brackets behind it."""
    if DIFFUSIVITY.search(text):
        return True
    if any(is_quantity(one or two) for one, two in _ADJACENT_UNIT.findall(text)):
        return True
    quantity = any(word in text.split() for word in vendors.LONE_MAP_WORDS)
    if quantity and any(is_quantity(unit) for unit in _BRACKETS.findall(text) if unit.strip() not in _SHARED_UNITS):
        return True
    units = _BRACKETS.findall(text[match.end() :]) if (match := _MAP.search(text)) else ()
    return any(is_quantity(unit) for unit in units if unit.strip() not in _SHARED_UNITS)
