"""A listener on a free port of the loopback, objects to send, and senders: DCMTK's tools and pynetdicom."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

pytest.importorskip("pynetdicom", reason="pynetdicom (extra `pacs`) is not installed")

from pynetdicom import AE

from pipeline.dicom.network.config import ListenConfig
from pipeline.dicom.network.listener import Listener
from pipeline.dicom.phantom.folder import write_phantoms

PLANTED = "Zyxwname"
SENDER = "SCANNER1"


@dataclass
class Listening:
    """A running listener, its events, and how to reach it."""

    listener: Listener
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        """The inbox folder."""
        return self.listener.inbox.folder

    def stored(self, state: str = "*") -> list[Path]:
        """The objects of the inbox, sorted; without quarantine."""
        states = ("open", "complete") if state == "*" else (state,)
        return sorted(path for name in states for path in (self.inbox / name).rglob("*.dcm"))

    def associate(self, *datasets: Dataset, calling: str = SENDER, called: str = "NIGHTREAD", **more: Any) -> Any:
        """Open an association of pynetdicom that can send these data sets as they are encoded."""
        entity = AE(ae_title=calling)
        for ds in datasets:
            entity.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
        if not datasets:
            entity.add_requested_context("1.2.840.10008.1.1")
        return entity.associate("127.0.0.1", self.listener.port, ae_title=called, **more)

    def send(self, *datasets: Dataset) -> list[int]:
        """Send data sets over one association; returns the status of each, -1 where no answer came."""
        association = self.associate(*datasets)
        assert association.is_established
        answers = [association.send_c_store(ds).get("Status", -1) for ds in datasets]
        association.release()
        return answers


Listen = Callable[..., Listening]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    """Start listeners; they are stopped after the test."""
    running: list[Listener] = []

    def start(**settings: Any) -> Listening:
        events: list[dict[str, Any]] = []
        values = {
            "inbox": tmp_path / "inbox",
            "allowed": (SENDER,),
            "quiet_seconds": 600,
            "reserve_bytes": 0,
            **settings,
        }
        listener = Listener(ListenConfig(port=0, grace_seconds=0, **values), events.append)
        running.append(listener.__enter__())
        return Listening(listener, events)

    yield start
    for listener in running:
        listener.__exit__(None, None, None)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve CT slices of four patients, with a planted word in every name and number."""
    folder = tmp_path_factory.mktemp("phantoms")
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    manifest = write_phantoms(folder, 4, "CT", 0.5, 7, slices=3, size=32, syntaxes=syntaxes, family=PLANTED)
    return [file.path for file in manifest.files]


@pytest.fixture
def datasets(phantoms: list[Path]) -> list[Dataset]:
    """The slices, parsed again for every test."""
    return [dcmread(path) for path in phantoms]


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a tool of DCMTK; skips where it is missing."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} (Debian package dcmtk) is not installed")
        return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False)

    return run


@dataclass
class Pacs:
    """A small PACS on the loopback that answers C-FIND, C-GET and C-MOVE, ignores filters, and fails on demand."""

    datasets: list[Dataset]
    asked: list[tuple[str, str, Dataset]] = field(default_factory=list)
    find_status: list[int] = field(default_factory=list)  # one is taken for each query until none is left
    get_status: list[int] = field(default_factory=list)
    before_get: Callable[[], None] = lambda: None
    withheld: set[str] = field(default_factory=set)
    port: int = 0
    move_to: int = 0
    largest: int = 0  # associations at once
    source: str = ""

    def levels(self, kind: str) -> list[str]:
        """The levels of all requests of a kind, in order."""
        return [level for asked_kind, level, _ in self.asked if asked_kind == kind]

    def _matching(self, kind: str, event: Any) -> list[Dataset]:
        identifier = event.identifier
        self.asked.append((kind, identifier.QueryRetrieveLevel, identifier))
        self.largest = max(self.largest, len(event.assoc.ae.active_associations))
        uids = [keyword for keyword in UIDS if identifier.get(keyword)]
        return [ds for ds in self.datasets if all(ds[k].value in _values(identifier[k].value) for k in uids)]

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        """Answer C-FIND."""
        matches = self._matching("find", event)
        if self.find_status and (status := self.find_status.pop(0)):
            yield status, None
            return
        keyword = {"STUDY": UIDS[0], "SERIES": UIDS[1], "IMAGE": UIDS[2]}[event.identifier.QueryRetrieveLevel]
        for ds in {ds[keyword].value: ds for ds in matches}.values():
            answer = Dataset()
            for element in event.identifier:
                if element.keyword in ds:
                    answer[element.keyword] = ds[element.keyword]
            answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
            if "NumberOfSeriesRelatedInstances" in event.identifier:
                same = [other for other in matches if other.SeriesInstanceUID == ds.SeriesInstanceUID]
                answer.NumberOfSeriesRelatedInstances = len(same)
            yield 0xFF00, answer

    def get(self, event: Any) -> Iterator[Any]:
        """Answer C-GET."""
        self.before_get()
        matches = [ds for ds in self._matching("get", event) if ds.SOPInstanceUID not in self.withheld]
        status = self.get_status.pop(0) if self.get_status else 0
        yield len(matches)
        for ds in [] if status else matches:
            yield 0xFF00, ds
        if status:
            yield status, None

    def move(self, event: Any) -> Iterator[Any]:
        """Answer C-MOVE."""
        matches = self._matching("move", event)
        if event.move_destination != "NIGHTREAD":
            yield None, None
            return
        yield "127.0.0.1", self.move_to, {"ae_title": "NIGHTREAD"}
        yield len(matches)
        for ds in matches:
            yield 0xFF00, ds


UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def _values(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


@pytest.fixture
def pacs(datasets: list[Dataset]) -> Iterator[Callable[..., Pacs]]:
    """Start a PACS that holds the slices; with `get=False` it does not support C-GET."""
    servers: list[Any] = []

    def start(get: bool = True, allowed: str = "NIGHTREAD", **settings: Any) -> Pacs:
        from pynetdicom import build_context, evt, sop_class

        pacs = Pacs([*datasets], **settings)
        entity = AE(ae_title="PACS")
        entity.require_called_aet, entity.require_calling_aet = True, [allowed]
        entity.maximum_associations = 50
        entity.add_supported_context(sop_class.StudyRootQueryRetrieveInformationModelFind)
        entity.add_supported_context(sop_class.StudyRootQueryRetrieveInformationModelMove)
        if get:
            entity.add_supported_context(sop_class.StudyRootQueryRetrieveInformationModelGet)
        kinds = {(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for ds in datasets}
        for sop in {kind for kind, _ in kinds}:
            entity.add_supported_context(sop, [s for k, s in kinds if k == sop], scu_role=True, scp_role=True)
        entity.requested_contexts = [build_context(kind, syntax) for kind, syntax in sorted(kinds)]
        handlers = [(evt.EVT_C_FIND, pacs.find), (evt.EVT_C_GET, pacs.get), (evt.EVT_C_MOVE, pacs.move)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        servers.append(server)
        pacs.port = server.server_address[1]
        pacs.source = f"PACS@127.0.0.1:{pacs.port}"
        return pacs

    yield start
    for server in servers:
        server.shutdown()
