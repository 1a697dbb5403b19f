"""Name of the rules that accept or refuse files: an upgrade that changes them reads the refused files again."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

import pipeline

DIGITS = 16
_CODE = ("dicom/decode", "dicom/intake", "data/ingest", "data/catalogue/admission.py")  # of the package
_DECODERS = (
    "pydicom",
    "pillow",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
)


@cache
def reading_rules() -> str:
    """Return 16 hexadecimal digits that change with the code that refuses files, and with the decoders' versions.

    It follows from the code itself, so that no change of a rule can be forgotten; a change of a comment costs one more
    reading of the files that were refused.
    """
    digest = hashlib.sha256(pipeline.__version__.encode())
    for name in _DECODERS:
        digest.update(f"\0{name} {_version(name)}".encode())
    folder = Path(pipeline.__file__).parent
    for name in _CODE:
        place = folder / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"\0{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:DIGITS]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
