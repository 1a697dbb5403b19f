"""PACS queried by C-FIND and read by C-GET or C-MOVE (PS3.4 C), with the Study Root model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from pipeline.dicom.decode.source import quietly
from pipeline.dicom.network.address import PASSING, Address
from pipeline.dicom.network.config import ListenConfig, PullConfig
from pipeline.dicom.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from pipeline.dicom.network.listener import Listener
from pipeline.dicom.network.query import FoundObject, FoundSeries, Query
from pipeline.dicom.network.retrieved_objects import Intake
from pipeline.errors import SendError

_MOST_CONTEXTS = 127  # PS3.8 9.3.2: 128 in total, one of them for the request itself
_AT_ONCE = 100  # most objects named in one request
_UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_WHY = {
    0xA700: "it is out of resources: request fewer days",
    0xA701: "it cannot count the requested objects",
    0xA702: "it cannot send the requested objects",
    0xA801: "it does not know our AE title as a destination: register it there with this host and port",
    0xA900: "it does not understand the request",
}


class QueryRetrieve:
    """Source of studies at the address of a PACS.

    Args:
        address: of the PACS.
        config: retrieval method, and where to receive the objects of a C-MOVE.
        intake: receives the objects.
    """

    def __init__(self, address: Address, config: PullConfig, intake: Intake) -> None:
        self._address, self._config, self._intake = address, config, intake
        self._method: str = config.method
        self._listener: Listener | None = None
        self._open, self._guard = ExitStack(), threading.Lock()

    @property
    def name(self) -> str:
        """The address in its written form."""
        return self._address.name

    def close(self) -> None:
        """Close the port for C-MOVE, if it is open."""
        self._open.close()

    def studies(self, query: Query) -> list[str]:
        """Return the Study Instance UIDs that match, each once."""
        queries = ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", **keys} for keys in query.study_keys())
        answers = [answer for keys in queries for answer in self._find(keys) if query.has_study(answer)]
        return list(dict.fromkeys(answer["StudyInstanceUID"] for answer in answers))

    def series(self, study_uid: str, query: Query) -> list[FoundSeries]:
        """Return the series of a study that match."""
        keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": study_uid, "SeriesInstanceUID": ""}
        returned = {"Modality": "", "SeriesDescription": "", "NumberOfSeriesRelatedInstances": ""}
        return [
            FoundSeries(study_uid, answer["SeriesInstanceUID"], number(answer["NumberOfSeriesRelatedInstances"]))
            for answer in self._find({**keys, **returned})
            if query.has_series(answer)
        ]

    def objects(self, series: FoundSeries) -> list[FoundObject]:
        """Return the objects of a series; empty where the series no longer exists."""
        keys = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.uid}
        answers = self._find({**keys, "SOPInstanceUID": "", "SOPClassUID": ""})
        return [FoundObject(answer["SOPInstanceUID"], answer["SOPClassUID"]) for answer in answers]

    def _find(self, keys: dict[str, str]) -> list[dict[str, str]]:
        with self._association([build_context(Find, _UNCOMPRESSED)], "answer queries (C-FIND)") as association:
            answers = association.send_c_find(dataset_of(keys), Find)
            return [plain(item, keys) for item in self._pending(answers, "a query") if item is not None]

    @contextmanager
    def _association(self, contexts: Sequence[PresentationContext], what: str, **more: Any) -> Iterator[Any]:
        association = self._address.associate(contexts, what, silent_seconds=self._config.silent_seconds, **more)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _pending(self, answers: Any, what: str) -> Iterator[Dataset | None]:
        """Yield the identifiers of pending answers (PS3.7 C.4.1); the last answer must be a success or a warning."""
        for response, identifier in answers:
            value = response.get("Status")
            if value is None:
                raise SendError(f"{self.name} closed the association in the middle of {what}.", passing=True)
            if value in (0xFF00, 0xFF01):
                yield identifier
            elif value not in (0x0000, 0xB000):
                why = f": {_WHY[value]}" if value in _WHY else ""
                raise SendError(f"{self.name} answered {value:#06x} to {what}{why}.", passing=value in PASSING)

    def fetch(self, series: FoundSeries, objects: Sequence[FoundObject], whole: bool) -> None:
        """Fetch objects into the inbox; `whole` means that they are all objects of the series."""
        keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.uid}
        if whole:
            self._retrieve(dataset_of({"QueryRetrieveLevel": "SERIES", **keys}), objects)
            return
        for start in range(0, len(objects), _AT_ONCE):
            part = objects[start : start + _AT_ONCE]
            identifier = dataset_of({"QueryRetrieveLevel": "IMAGE", **keys})
            identifier.SOPInstanceUID = [item.uid for item in part]
            self._retrieve(identifier, part)

    def _retrieve(self, identifier: Dataset, objects: Sequence[FoundObject]) -> None:
        if self._method != "move" and self._by_get(identifier, objects):
            return
        self._by_move(identifier)

    def _by_get(self, identifier: Dataset, objects: Sequence[FoundObject]) -> bool:
        """Fetch by C-GET; False where the PACS does not support it and C-MOVE may be tried."""
        classes = sorted({item.sop_class for item in objects})
        contexts = [build_context(Get, _UNCOMPRESSED), *storage_contexts(classes if all(classes) else STORAGE_CLASSES)]
        roles = [build_role(uid, scp_role=True) for uid in {str(cx.abstract_syntax) for cx in contexts[1:]}]
        handlers = [(evt.EVT_C_STORE, self._intake.answer)]
        with self._association(contexts, "give objects (C-GET)", roles=roles, handlers=handlers) as association:
            if not any(cx.abstract_syntax == Get for cx in association.accepted_contexts):
                if self._method == "get":
                    raise SendError(f"{self.name} does not support C-GET. Try --method move.", passing=False)
                self._method = "move"
                return False
            for _ in self._pending(association.send_c_get(identifier, Get), "C-GET"):
                pass
        return True

    def _by_move(self, identifier: Dataset) -> None:
        self._listen()
        with self._association([build_context(Move, _UNCOMPRESSED)], "give objects (C-GET, C-MOVE)") as association:
            for _ in self._pending(association.send_c_move(identifier, self._config.ae_title, Move), "C-MOVE"):
                pass

    def _listen(self) -> None:
        """Open a local port for the objects that the PACS sends in a C-MOVE."""
        with self._guard:
            if self._listener is None:
                config = ListenConfig(
                    host=self._config.move_host,
                    port=self._config.move_port,
                    ae_title=self._config.ae_title,
                    allowed=(self._address.ae_title,),
                    inbox=self._config.inbox,
                    idle_seconds=self._config.silent_seconds,
                    tls=self._config.tls,
                )
                self._listener = self._open.enter_context(Listener(config, lambda event: None, self._intake))


def storage_contexts(classes: Sequence[str]) -> list[PresentationContext]:
    """Return contexts that let the PACS send every class as stored; each context is accepted with only one syntax."""
    each = len(classes) * len(TRANSFER_SYNTAXES) <= _MOST_CONTEXTS
    groups = [[uid] for uid in TRANSFER_SYNTAXES] if each else [list(TRANSFER_SYNTAXES)]
    return [build_context(uid, group) for uid in classes for group in groups]


def dataset_of(keys: dict[str, str]) -> Dataset:
    """Return a query identifier; encoded in UTF-8 where it is not plain ASCII."""
    identifier = Dataset()
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    with quietly():  # pydicom's warnings quote unusual values
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
    return identifier


def plain(answer: Dataset, keys: dict[str, str]) -> dict[str, str]:
    """Return the requested elements of an answer as text, empty where they are missing."""
    with quietly():
        values = {keyword: answer.get(keyword) for keyword in keys}
    return {keyword: "" if value is None else str(value).strip() for keyword, value in values.items()}


def number(text: str) -> int | None:
    """Return a count (VR IS), or None where the PACS does not give one."""
    return int(text) if text.isdigit() else None
