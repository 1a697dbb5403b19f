"""Objects that Nightread made, and synthetic images of any origin, are recognised and never enter the catalogue.

A picture of a flagged scan that comes back from the PACS would tell a reader what was flagged, and a generated image
that entered a training set would teach a model its own mistakes. Gateways rewrite names and descriptions, so an object
is recognised by any one of several marks; `pipeline.data.ingest` also compares it with the record of what was pushed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pipeline.dicom.decode.fields import read_items, read_optional_text, read_text
from pipeline.dicom.decode.own_uids import is_own_uid
from pipeline.errors import Rejected, RejectionCode

MANUFACTURER = "Nightread"  # (0008,0070) of everything that Nightread makes, except wrapped images and phantoms
SCHEME = "99NIGHTREAD"  # private coding scheme (PS3.3 8.2), named in every object that uses it
NOT_FOR_DIAGNOSIS = "Not for diagnosis: an unsupervised detector's statement of how unusual this study is."

# Frames of these classes are statements about images (PS3.3 A.51, A.75): they can be decoded, but are never scored.
STATEMENTS = {str(SegmentationStorage): "segmentation", str(ParametricMapStorage): "parametric map"}
CAPTURES = frozenset({str(SecondaryCaptureImageStorage), str(MultiFrameTrueColorSecondaryCaptureImageStorage)})
ANY_CAPTURE = str(SecondaryCaptureImageStorage)  # begins the UIDs of the multi-frame forms, too (PS3.4 B.5)
_SEARCHED = frozenset({*STATEMENTS, *CAPTURES, str(KeyObjectSelectionDocumentStorage)})
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # structured reports and key objects
_TEXTS = (SCHEME.encode(), NOT_FOR_DIAGNOSIS[:60].encode())
_UIDS = re.compile(rb"2\.25\.[0-9]{1,39}")
_PIXELS = 0x7FE0


def refuse_own(ds: Dataset) -> None:
    """Refuse a synthetic image and an object that Nightread made.

    Raises:
        Rejected: SYNTHETIC, Synthetic Data (0008,001C) is YES (PS3.3 C.12.1); MADE_HERE, the object bears a mark of
            Nightread (`find_mark`).
    """
    if read_text(ds, "SyntheticData").strip().upper() == "YES":
        raise Rejected(
            RejectionCode.SYNTHETIC,
            "Synthetic Data (0008,001C) is YES: the image was generated, and shows no patient. Remove it from the "
            "folder; synthetic images enter a training only by its configuration.",
        )
    if mark := find_mark(ds):
        raise made_here(mark)


def made_here(mark: str) -> Rejected:
    """Return the rejection of an object of ours; `mark` says how it was recognised."""
    sentence = f"Nightread made this object itself, as {mark} shows, so it is a result and not a scan. "
    return Rejected(RejectionCode.MADE_HERE, sentence + "No action is needed.")


def refuse_statement(sop_class_uid: str) -> None:
    """Refuse a segmentation or parametric map of any maker: its frames are drawn on images and show no patient.

    Raises:
        Rejected: NOT_AN_IMAGE.
    """
    if kind := STATEMENTS.get(sop_class_uid):
        raise Rejected(
            RejectionCode.NOT_AN_IMAGE,
            f"The object is a {kind}: its frames were computed from images and are not a scan. No action is needed.",
        )


def find_mark(ds: Dataset) -> str:
    """Return the name of a mark by which the object is ours, "" without one.

    Every object is judged by its equipment, description and UIDs. Segmentations, maps, captures, reports and key
    objects are also searched for our coding scheme, our notice and our UIDs in any of their elements, since what they
    say and what they refer to outlives a rewriting of their header.
    """
    if _names_us(ds) or any(_names_us(item) for item in read_items(ds, "ContributingEquipmentSequence")):
        return "its equipment or description"
    if any(is_own_uid(read_optional_text(ds, name)) for name in ("SOPInstanceUID", "SeriesInstanceUID")):
        return "its UID"
    sop_class = read_optional_text(ds, "SOPClassUID")
    if sop_class in _SEARCHED or sop_class.startswith(_REPORTS):
        return "its content" if any(map(_bears_mark, _values(ds))) else ""
    return ""


def _names_us(ds: Dataset) -> bool:
    """Return whether one of the names that we write is Nightread's, in any case: a gateway may rewrite one of them."""
    names = (read_text(ds, name).strip().casefold() for name in ("Manufacturer", "ManufacturerModelName"))
    title = read_text(ds, "SeriesDescription").strip().casefold()
    return MANUFACTURER.casefold() in names or title.startswith(f"{MANUFACTURER.casefold()}:")


def _values(ds: Dataset) -> Iterator[bytes]:
    """Yield the values of a data set and of all items within, as bytes and without pixels; they are not decoded."""
    for tag, element in ds._dict.items():
        value: Any = element.value
        if tag.group == _PIXELS:
            continue
        if isinstance(value, bytes):  # a whole sequence too, as long as nobody has parsed it
            yield value
        elif isinstance(value, Sequence):
            for item in value:
                yield from _values(item)
        elif value is not None:
            yield (value if isinstance(value, str) else "\\".join(map(str, _several(value)))).encode(errors="replace")


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) else (value,)


def _bears_mark(value: bytes) -> bool:
    if any(text in value for text in _TEXTS):
        return True
    return any(is_own_uid(uid.decode("ascii")) for uid in _UIDS.findall(value))
