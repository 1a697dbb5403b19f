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
    """A running listener, what it told, and how to reach it."""

    listener: Listener
    told: list[dict[str, Any]] = field(default_factory=list)

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
        told: list[dict[str, Any]] = []
        values = {
            "inbox": tmp_path / "inbox",
            "allowed": (SENDER,),
            "quiet_seconds": 600,
            "reserve_bytes": 0,
            **settings,
        }
        listener = Listener(ListenConfig(port=0, grace_seconds=0, **values), told.append)
        running.append(listener.__enter__())
        return Listening(listener, told)

    yield start
    for listener in running:
        listener.__exit__(None, None, None)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve CT slices of four patients, every name and number of which holds a planted word."""
    folder = tmp_path_factory.mktemp("phantoms")
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    manifest = write_phantoms(folder, 4, "CT", 0.5, 7, slices=3, size=32, syntaxes=syntaxes, family=PLANTED)
    return [file.path for file in manifest.files]


@pytest.fixture
def datasets(phantoms: list[Path]) -> list[Dataset]:
    """The slices, parsed anew for every test."""
    return [dcmread(path) for path in phantoms]


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a tool of DCMTK; skips where it is missing."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} (Debian package dcmtk) is not installed")
        return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)

    return run
