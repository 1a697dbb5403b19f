"""Intake of requested objects into the inbox: the pace limit, and the same checks as for the listener."""

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

_HEAD = 144  # preamble, prefix, and the element with the length of the file meta group (PS3.10 7.1)


class Intake(Receiver):
    """A receiver that limits the pace and records which objects it refused.

    Attributes:
        refused: status and reason per SOP Instance UID; PHI.
        bytes: total size of the received data sets.
        full: whether the disk is full or the reserve is reached.
    """

    def __init__(self, inbox: Inbox, limits: DecodeLimits, reserve_bytes: int, pace: Pace) -> None:
        super().__init__(inbox, limits, reserve_bytes, lambda event: None)
        self.pace = pace
        self.refused: dict[str, tuple[int, str]] = {}
        self.bytes, self.full = 0, False
        self._adding = threading.Lock()

    def answer(self, event: Event) -> Dataset:
        """Answer a C-STORE request."""
        response = super().answer(event)
        size = 0 if event.request.DataSet is None else len(event.request.DataSet.getbuffer())
        self._note(str(event.request.AffectedSOPInstanceUID), size, response)
        return response

    def take_file(self, sop_uid: str, data: bytes) -> None:
        """Add an object that arrived as a PS3.10 file."""
        self._note(sop_uid, len(data), self._from_file(data))

    def _from_file(self, data: bytes) -> Dataset:
        try:
            end = _HEAD + struct.unpack("<L", data[_HEAD - 4 : _HEAD])[0]
            with quietly():
                meta = dcmread(BytesIO(data[:end])).file_meta
            named = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
        except (struct.error, InvalidDicomError, AttributeError, ValueError, EOFError):
            return self._refuse(CANNOT_UNDERSTAND, "not a PS3.10 file")
        if named[0] not in STORAGE_CLASSES or named[2] not in TRANSFER_SYNTAXES:
            return self._refuse(UNSUPPORTED, "SOP class or transfer syntax not supported")
        return self.take(*named, BytesIO(data[end:]))

    def _refuse(self, value: int, reason: str) -> Dataset:
        self._count("refused")
        return status(value, reason)

    def _note(self, sop_uid: str, size: int, response: Dataset) -> None:
        with self._adding:
            self.bytes += size
            if response.Status == OUT_OF_RESOURCES:
                self.full = self.full or response.get("ErrorComment") == "disk full"
            if response.Status:
                self.refused[sop_uid] = (int(response.Status), str(response.get("ErrorComment", "")))
        self.pace.spent(size)
