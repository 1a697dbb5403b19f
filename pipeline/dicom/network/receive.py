"""Answers to C-STORE requests (PS3.4 B.2.3): success only once the object is durable, otherwise what is wrong.

0x0000 stored, the same as an earlier object, or quarantined as a conflicting duplicate; 0x0122 SOP class not
supported; 0xA700 out of resources; 0xA900 data set does not match its SOP class, or invalid UIDs; 0xC000 cannot
understand; 0x0110 the disk failed.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.events import Event

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.fields import read_text
from pipeline.dicom.decode.header import read_identity, require_valid_uids
from pipeline.dicom.decode.payload import PIXEL_KEYWORDS
from pipeline.dicom.decode.source import guard, open_dataset, quietly
from pipeline.dicom.decode.waveform import has_waveform
from pipeline.dicom.identity.uids import derived_uid
from pipeline.dicom.network.inbox import Inbox, Kept
from pipeline.dicom.network.same_object import is_same_object
from pipeline.errors import Rejected, RejectionCode

SUCCESS, FAILED, UNSUPPORTED, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0, 0x0110, 0x0122, 0xA700, 0xA900, 0xC000
_UNDEFINED = 0xFFFFFFFF
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MISMATCHED = frozenset({RejectionCode.MISSING_IDENTITY, RejectionCode.INVALID_UID, RejectionCode.NO_PIXEL_DATA})

Tell = Callable[[dict[str, Any]], None]


class Refusal(Exception):
    """A request that is answered with a failure: its status, and a short reason for the log without identifiers."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Receiver:
    """Answers C-STORE requests from several associations at once, and counts its answers.

    Args:
        inbox: folder that receives the objects.
        limits: limits on one object.
        reserve_bytes: disk space to keep free.
        tell: called for everything that is not simply stored, with a plain dictionary without identifiers.
    """

    def __init__(self, inbox: Inbox, limits: DecodeLimits, reserve_bytes: int, tell: Tell) -> None:
        self.inbox, self._limits, self._reserve, self._tell = inbox, limits, reserve_bytes, tell
        self._guard = threading.Lock()
        self.counts: Counter[str] = Counter()

    def answer(self, event: Event) -> Dataset:
        """Store the object of a C-STORE request and return the status elements of the response."""
        return self._counted(lambda: self._receive(event))

    def take(self, sop_class: str, sop_instance: str, transfer_syntax: str, data_set: BytesIO) -> Dataset:
        """Store an object that arrived in another way than by C-STORE; the answer is the same."""
        return self._counted(lambda: self.keep(sop_class, sop_instance, transfer_syntax, data_set))

    def _counted(self, keep: Callable[[], Kept]) -> Dataset:
        try:
            outcome = keep()
        except Refusal as refusal:
            self._count("refused")
            self._tell({"event": "refused", "status": f"{refusal.status:#06x}", "reason": refusal.reason})
            return status(refusal.status, refusal.reason)
        self._count(outcome.value)
        if outcome is Kept.QUARANTINED:
            self._tell({"event": "quarantined", "code": RejectionCode.CONFLICTING_DUPLICATE.value})
        return status(SUCCESS)

    def _count(self, what: str) -> None:
        with self._guard:
            self.counts[what] += 1

    def _receive(self, event: Event) -> Kept:
        request, context = event.request, event.context
        if request.AffectedSOPClassUID != context.abstract_syntax:
            raise Refusal(UNSUPPORTED, "SOP class differs from its presentation context")
        if request.DataSet is None:
            raise Refusal(CANNOT_UNDERSTAND, "no data set")
        return self.keep(
            request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, context.transfer_syntax, request.DataSet
        )

    def keep(self, sop_class: str, sop_instance: str, transfer_syntax: str, data_set: BytesIO) -> Kept:
        """Check an encoded data set and add it to the inbox; durable when this returns.

        Raises:
            Refusal: it is not stored; with the status to send back.
        """
        data = data_set.getbuffer()
        _require_uids(sop_class, sop_instance)
        self._require_room(len(data))
        try:
            with self.inbox.draft([_head(sop_class, sop_instance, transfer_syntax), data]) as draft:
                study_uid = _study_of(draft, sop_class, sop_instance, self._limits)
                return self.inbox.keep(draft, study_uid, sop_instance, partial(is_same_object, limits=self._limits))
        except OSError as error:
            full = error.errno in _FULL
            raise Refusal(*((OUT_OF_RESOURCES, "disk full") if full else (FAILED, "disk error"))) from None

    def _require_room(self, size: int) -> None:
        if size > self._limits.file_bytes:
            raise Refusal(OUT_OF_RESOURCES, "object larger than file_bytes")
        try:
            free = self.inbox.count_free_bytes()
        except OSError:
            raise Refusal(FAILED, "disk error") from None
        if free < size + self._reserve:
            raise Refusal(OUT_OF_RESOURCES, "disk full")


def status(value: int, comment: str = "") -> Dataset:
    """Return the status elements of a response (PS3.7 C); the comment is cut to 64 characters (VR LO)."""
    elements = Dataset()
    elements.Status = value
    if comment:
        elements.ErrorComment = comment[:64]
    return elements


def _head(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 7.1); identical for identical objects."""
    meta = create_file_meta(
        sop_class_uid=UID(sop_class),
        sop_instance_uid=UID(sop_instance),
        transfer_syntax=UID(transfer_syntax),
        implementation_uid=UID(derived_uid("implementation", "network")),
        implementation_version="NIGHTREAD",
    )
    return bytes(128) + b"DICM" + encode_file_meta(meta)


def _require_uids(sop_class: str, sop_instance: str) -> None:
    """Refuse a request whose own UIDs are not UIDs, before anything is written under them."""
    try:
        require_valid_uids({"Affected SOP Class UID": sop_class, "Affected SOP Instance UID": sop_instance})
    except Rejected as rejected:
        raise Refusal(MISMATCH, rejected.code.value) from None


def _require_whole(ds: Dataset) -> None:
    """Refuse noise, which parses as unknown elements, and a last element that is shorter than its declared length."""
    if "SOPClassUID" not in ds and "SOPInstanceUID" not in ds:
        raise Refusal(CANNOT_UNDERSTAND, RejectionCode.NOT_DICOM.value)
    last = ds.get_item(max(ds.keys()))
    if isinstance(last, RawDataElement) and last.length not in (_UNDEFINED, len(last.value or b"")):
        raise Refusal(CANNOT_UNDERSTAND, RejectionCode.TRUNCATED_PIXELS.value)


def _study_of(path: Path, sop_class: str, sop_instance: str, limits: DecodeLimits) -> str:
    """Parse the object as the reader would, and return its Study Instance UID.

    Raises:
        Refusal: it cannot be parsed, or does not match the request.
    """
    try:
        with guard(RejectionCode.CORRUPT_HEADER), quietly():
            ds = open_dataset(path, limits).ds
        _require_whole(ds)
        with guard(RejectionCode.CORRUPT_HEADER), quietly():
            identity = read_identity(ds)
            named = read_text(ds, "SOPClassUID")
            has_pixels = has_waveform(ds) or any(keyword in ds for keyword in PIXEL_KEYWORDS)
    except Rejected as rejected:
        code = MISMATCH if rejected.code in _MISMATCHED else CANNOT_UNDERSTAND
        raise Refusal(code, rejected.code.value) from None
    if (named, identity.sop_uid) != (sop_class, sop_instance):
        raise Refusal(MISMATCH, "data set names another SOP class or instance")
    if not has_pixels:
        raise Refusal(MISMATCH, RejectionCode.NO_PIXEL_DATA.value)
    return identity.study_uid
