"""DCMTK's senders at `nightread listen`, as a hospital uses them: storescu, dcmsend, two syntaxes, an invalid UID."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest

SENDER = "SCANNER1"
START = ("-c", "from pipeline.cli import main; main()")

pytestmark = pytest.mark.slow


class Command:
    """A running `nightread listen`."""

    def __init__(self, workspace: Path) -> None:
        command = [sys.executable, *START, "-w", workspace, "listen", "--json", "--port", "0", "--allow", SENDER]
        self.process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = json.loads(self.process.stdout.readline())["port"]
        self.peer = ("-aet", SENDER, "-aec", "NIGHTREAD", "127.0.0.1", port)

    def stop(self) -> list[dict[str, Any]]:
        """End it as a service manager does; returns its events."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=240)
        assert (self.process.returncode, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def running(settings: Settings) -> Iterator[Command]:
    """The command in the workspace; killed after a test that did not stop it."""
    command = Command(settings.workspace)
    yield command
    command.process.kill()


@pytest.fixture
def explicit(phantoms: list[Path], tmp_path: Path) -> Path:
    """One object in explicit little endian."""
    ds = dcmread(next(path for path in phantoms if dcmread(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian))
    ds.save_as(file := tmp_path / "explicit.dcm")
    return file


def test_two_senders_and_two_syntaxes_are_one_object(
    running: Command, explicit: Path, settings: Settings, dcmtk: Callable, tmp_path: Path
) -> None:
    assert dcmtk("dcmconv", "+ti", explicit, implicit := tmp_path / "implicit.dcm").returncode == 0
    assert dcmread(implicit).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    for tool, file in (("storescu", explicit), ("dcmsend", implicit), ("storescu", implicit), ("dcmsend", explicit)):
        options = ("-R", "-xi") if (tool, file) == ("storescu", implicit) else ()
        assert dcmtk(tool, *options, *running.peer, file).returncode == 0, (tool, file)
    events = running.stop()
    assert events[-1] == {"event": "stopped", "stored": 1, "same": 3, "waiting studies": 1}
    stored = list(settings.inbox.rglob("*.dcm"))
    assert len(stored) == 1 and "quarantine" not in stored[0].parts
    assert ingest([settings.inbox / "open"], settings).added == 1


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
def test_an_invalid_uid_is_refused_with_its_status(
    running: Command, explicit: Path, settings: Settings, dcmtk: Callable, tmp_path: Path, keyword: str
) -> None:
    ds, bad = dcmread(explicit), tmp_path / "bad.dcm"
    with pytest.warns(UserWarning):
        setattr(ds, keyword, "../../x")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(bad)
    answer = dcmtk("storescu", "-d", *running.peer, bad)
    assert answer.returncode != 0 and "0xa900" in (answer.stdout + answer.stderr).lower()
    dcmtk("dcmsend", "-nuc", "-nh", "+crf", tmp_path / "report.txt", *running.peer, bad)
    assert "0xa900" in (tmp_path / "report.txt").read_text().lower()
    assert dcmtk("storescu", *running.peer, explicit).returncode == 0, "the real object still enters"
    events = running.stop()
    assert [event["status"] for event in events if event["event"] == "refused"] == ["0xa900"] * 2
    assert events[-1] == {"event": "stopped", "stored": 1, "refused": 2, "waiting studies": 1}
    assert len(list(settings.inbox.rglob("*.dcm"))) == 1
