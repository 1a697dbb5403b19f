"""The tables of the DICOM conformance statement, read off the code that negotiates and decodes."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pipeline.dicom.decode.pixels import PLUGINS
from pipeline.dicom.export.described import KINDS
from pipeline.dicom.network import receive
from pipeline.dicom.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

SENT = {
    "seg": (SegmentationStorage, "where the study differs from normal, on the geometry of the originals"),
    "pm": (ParametricMapStorage, "the anomaly map, float, on the geometry of the originals; for originals with one"),
    "sc": (SecondaryCaptureImageStorage, "a picture of the most unusual images, with outline and anomaly map"),
    "sr": (Comprehensive3DSRStorage, "the statement, area and volume of the regions (TID 1500, 1410, 1411)"),
    "ko": (KeyObjectSelectionDocumentStorage, "the flagged images, by TID 2010"),
}
STATUSES = {
    receive.SUCCESS: "stored and on disk; or the same object was there already; or a conflicting one, quarantined",
    receive.FAILED: "the disk failed",
    receive.UNSUPPORTED: "SOP class not supported",
    receive.OUT_OF_RESOURCES: "out of resources: the disk is full up to the reserve, or the object exceeds the limit",
    receive.MISMATCH: "the data set does not match its SOP class: no pixels, or no identity",
    receive.CANNOT_UNDERSTAND: "cannot understand: the data set cannot be parsed, or is cut short",
}


def storage_classes() -> str:
    """Return the storage classes that are offered and accepted."""
    return _table(("SOP class", "UID"), ((UID(uid).name, f"`{uid}`") for uid in STORAGE_CLASSES))


def received_syntaxes() -> str:
    """Return the transfer syntaxes that are offered and accepted for each of them."""
    return _table(("transfer syntax", "UID"), ((UID(uid).name, f"`{uid}`") for uid in TRANSFER_SYNTAXES))


def decoded_syntaxes() -> str:
    """Return who decodes each compressed syntax, in the order in which decoders are tried."""
    rows = ((UID(uid).name, ", ".join(f"`{name}`" for name in names)) for uid, names in PLUGINS.items())
    return _table(("compressed transfer syntax", "decoders, in this order"), rows)


def sent_classes() -> str:
    """Return the objects that `nightread push` makes, in the order of sending."""
    rows = ((UID(SENT[kind][0]).name, f"`{SENT[kind][0]}`", SENT[kind][1]) for kind in KINDS)
    return _table(("SOP class", "UID", "holds"), rows)


def store_statuses() -> str:
    """Return the statuses that a sender may hear."""
    return _table(("status", "meaning"), ((f"`0x{value:04X}`", text) for value, text in STATUSES.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
