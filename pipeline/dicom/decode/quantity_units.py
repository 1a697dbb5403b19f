"""Units of values that are a quantity and not a signal, in the many ways in which scanners and UCUM write them."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Diffusivity has too many spellings to list ("10^-6 mm2/s", "um^2/ms", "x10-3 mm²/s", "mm**2/s").
DIFFUSIVITY = re.compile(r"[MU\N{GREEK CAPITAL LETTER MU}]M(\^|\*\*)?2\s*/\s*(S|MS|SEC|MSEC)\b")
# In the form of `canonical`. PS3.3 C.11.1.1.2 (Rescale Type) and UCUM: time, relaxation, angle, frequency, speed,
# flow, pressure, temperature, share.
_UNITS = """
MS S 1/S /S 1/MS /MS RAD RADS RADIAN RADIANS MRAD DEG DEGREE DEGREES HZ PPM PPB CM/S M/S MM/S
ML/100G/MIN ML/MIN/100G ML/100ML/MIN ML/MIN/100ML ML/100ML ML/100G ML/G/MIN ML/MIN/G ML/ML/MIN ML/MIN/ML
PCT % PERCENT PERCENTAGE RATIO FRACTION PA KPA KILOPASCAL PASCAL MG/G MG/ML MMOL/L CEL CELSIUS DEGC DEGREEC
DEGREESC MT UT 1/MIN /MIN
"""
_QUANTITIES = frozenset(_UNITS.split())
_HOUNSFIELD = frozenset({"", "HU", "US", "HOUNSFIELD", "HOUNSFIELDUNITS", "HOUNSFIELDUNIT", "HNSF'U", "HNSFU"})
_NONE = frozenset({"UNSPECIFIED", "NONE", "UNKNOWN", "NA", "N/A"})
_SECONDS = (
    (r"MILLISECONDS?\b", "MS"),
    (r"MSECS?\b", "MS"),
    (r"SECS?\b", "S"),
    (r"MINS\b|MINUTES?\b", "MIN"),
    (r"SECONDS?\b", "S"),
)
_PER = re.compile(r"(?<=[A-Z0-9)\]])[ .*]*(?<![A-Z])(S|MS|SEC|MSEC|MIN|G|ML)\^?-1(?![0-9])")
_LONE_PER = re.compile(r"(S|MS|SEC|MSEC|MIN)\^?-1")


@lru_cache(maxsize=256)  # the images of a series say the same
def canonical(unit: str) -> str:
    """Return a unit in capitals without blanks, brackets and signs of powers, with "/" for negative powers."""
    text = unicodedata.normalize("NFKC", unit).upper().replace("**", "^").replace("°", "DEG")
    text = re.sub(r"[\[\]{}]", "", text).strip()
    if lone := _LONE_PER.fullmatch(text.replace(" ", "")):
        text = f"/{lone[1]}"
    text = _PER.sub(r"/\1", text)
    for spelling, short in _SECONDS:
        text = re.sub(rf"(?<![A-Z]){spelling}", short, text)
    return re.sub(r"[\s().^_-]", "", text)


def is_quantity(unit: str) -> bool:
    """Return whether a unit is that of a quantity and not of a signal."""
    text = canonical(unit)
    return text in _QUANTITIES or DIFFUSIVITY.search(text) is not None


def is_hounsfield(unit: str) -> bool:
    """Return whether a CT unit is HU or says nothing: scanners and anonymisers write US, "unspecified", for HU too."""
    return canonical(unit) in _HOUNSFIELD | _NONE
