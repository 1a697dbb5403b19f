"""What objects that were asked for pass on their way into the inbox: the pace, and the listener's own checks."""

from __future__ import annotations

import struct
import threading
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom.events import Event

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.source import quietly
from pipeline.dicom.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from pipeline.dicom.network.inbox import Inbox
from pipeline.dicom.network.pace import Pace
from pipeline.dicom.network.receive import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, UNSUPPORTED, Receiver, status

_HEAD = 144  # preamble, prefix, and the element with the length of the other file meta elements (PS3.10 7.1)


class Intake(Receiver):
    """A receiver that keeps to a pace, and knows which objects it refused.

    Attributes:
        refused: status and reason by SOP Instance UID; PHI.
        bytes: of data sets that came.
        full: the disk is, or the reserve is reached.
    """

    def __init__(self, inbox: Inbox, limits: DecodeLimits, reserve_bytes: int, pace: Pace) -> None:
        super().__init__(inbox, limits, reserve_bytes, lambda event: None)
        self.pace = pace
        self.refused: dict[str, tuple[int, str]] = {}
        self.bytes, self.full = 0, False
        self._adding = threading.Lock()

    def answer(self, event: Event) -> Dataset:
        """Answer a C-STORE request."""
        found = super().answer(event)
        size = 0 if event.request.DataSet is None else len(event.request.DataSet.getbuffer())
        self._note(str(event.request.AffectedSOPInstanceUID), size, found)
        return found

    def take_file(self, sop_uid: str, data: bytes) -> None:
        """Keep an object that came as a file of PS3.10."""
        self._note(sop_uid, len(data), self._from_file(data))

    def _from_file(self, data: bytes) -> Dataset:
        try:
            end = _HEAD + struct.unpack("<L", data[_HEAD - 4 : _HEAD])[0]
            with quietly():
                meta = dcmread(BytesIO(data[:end])).file_meta
            named = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
        except (struct.error, InvalidDicomError, AttributeError, ValueError, EOFError):
            return self._refuse(CANNOT_UNDERSTAND, "no file of PS3.10")
        if named[0] not in STORAGE_CLASSES or named[2] not in TRANSFER_SYNTAXES:
            return self._refuse(UNSUPPORTED, "SOP class or transfer syntax is not read")
        return self.take(*named, BytesIO(data[end:]))

    def _refuse(self, value: int, reason: str) -> Dataset:
        self._count("refused")
        return status(value, reason)

    def _note(self, sop_uid: str, size: int, found: Dataset) -> None:
        with self._adding:
            self.bytes += size
            if found.Status == OUT_OF_RESOURCES:
                self.full = self.full or found.get("ErrorComment") == "disk full"
            if found.Status:
                self.refused[sop_uid] = (int(found.Status), str(found.get("ErrorComment", "")))
        self.pace.spent(size)
