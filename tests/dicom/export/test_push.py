"""Results of a scoring run return to their studies: real identity, each object once, retried where it failed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread

from pipeline.cli import group
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.exports import list_exports
from pipeline.data.catalogue.schema import ExportRow
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.network.config import ListenConfig
from pipeline.dicom.network.listener import Listener
from pipeline.dicom.network.send import Folder, Peer, Stow, require_destination, send_with_patience
from pipeline.dicom.network.web import WebService
from pipeline.errors import ConfigError, EmptySelection, SendError
from pipeline.stages.pacs.push import push


@pytest.fixture(autouse=True)
def forgotten(scored: Any) -> Iterator[None]:
    """Leave no export behind in the shared workspace."""
    yield
    with Catalogue.open(scored.settings) as catalogue, catalogue.session() as session:
        session.query(ExportRow).delete()


class Flaky:
    """A destination that fails on demand, and records what it accepts."""

    name = "FLAKY@nowhere:1"

    def __init__(self, *failures: SendError | None) -> None:
        self.failures = list(failures)
        self.taken: list[Dataset] = []

    def send(self, ds: Dataset) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.taken.append(ds)


def test_a_folder_gets_valid_objects_of_the_real_studies(scored: Any, outbox: Path, dciodvfy: Callable) -> None:
    report = push(scored.run_id, scored.settings, Folder(outbox))
    assert (report.findings, report.failed, report.notes) == (2, 0, [])
    assert report.sent["sr"] == report.sent["ko"] == report.sent["sc"] == report.sent["pm"] == 2
    files = sorted(outbox.glob("*.dcm"))
    assert len(files) == sum(report.sent.values())
    assert {path.name: dciodvfy(path) for path in files} == {path.name: [] for path in files}
    with Catalogue.open(scored.settings) as catalogue, Crosswalk.open(scored.settings) as crosswalk:
        flagged = {
            crosswalk.find_identity(row.study_id).study_uid for row in catalogue.list_findings(scored.run_id, True)
        }
    objects = [dcmread(path) for path in files]
    assert {ds.StudyInstanceUID for ds in objects} == flagged
    assert all(scored.planted in str(ds.PatientName) for ds in objects)
    assert all(path.stat().st_mode & 0o077 == 0 for path in [outbox, *files])
    assert not any(scored.planted in path.name for path in files)


def test_sent_objects_are_not_sent_again_and_failures_are_retried(scored: Any) -> None:
    final = SendError("refused", passing=False)
    target = Flaky(None, final)
    first = push(scored.run_id, scored.settings, target)
    assert first.failed == 1
    total = sum(first.sent.values()) + 1
    assert len(target.taken) == total - 1
    second = push(scored.run_id, scored.settings, target)
    assert (second.failed, second.sent_before, sum(second.sent.values())) == (0, 1, 1)
    assert len({ds.SOPInstanceUID for ds in target.taken}) == len(target.taken) == total
    third = push(scored.run_id, scored.settings, target)
    assert (third.sent_before, sum(third.sent.values())) == (2, 0)
    with Catalogue.open(scored.settings) as catalogue:
        rows = list_exports(catalogue, scored.run_id)
    assert {row.state for row in rows} == {"sent"} and len(rows) == total
    assert sorted(row.attempts for row in rows)[-1] == 2
    again = push(scored.run_id, scored.settings, target, again=True)
    assert sum(again.sent.values()) == total
    assert len({ds.SOPInstanceUID for ds in target.taken}) == total


def test_the_state_of_each_object_is_listed(scored: Any) -> None:
    arguments = ["-w", str(scored.settings.workspace), "push", scored.run_id, "--status"]
    assert "has been sent yet" in CliRunner().invoke(group, arguments).output
    push(scored.run_id, scored.settings, Flaky(None, SendError("The PACS said no.", passing=False)))
    rows = json.loads(CliRunner().invoke(group, [*arguments, "--json"]).output)
    assert {row["object"] for row in rows} >= {"sc", "sr", "ko"} and {row["to"] for row in rows} == {"FLAKY@nowhere:1"}
    assert [row["reason"] for row in rows if row["state"] == "failed"] == ["The PACS said no."]
    assert all((row["attempts"], row["state"] != "failed") == (1, True) or row["reason"] for row in rows)


def test_an_unreachable_destination_ends_the_push_and_patience_is_tried_first(
    scored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(
        "pipeline.stages.pacs.push.send_with_patience", lambda t, d: send_with_patience(t, d, 4, waits.append)
    )
    gone = SendError("cannot be reached", passing=True)
    report = push(scored.run_id, scored.settings, Flaky(*[gone] * 4))
    assert waits == [0.5, 1.0, 2.0] and report.failed == 1 and sum(report.sent.values()) == 0
    report = push(scored.run_id, scored.settings, Flaky(gone, gone))
    assert report.failed == 0 and report.findings == 2


def test_a_study_without_its_file_is_reported_and_the_others_are_sent(
    scored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hidden = Crosswalk.find_path, []

    def path(self: Crosswalk, path_id: str) -> str | None:
        hidden[:] = hidden or [path_id]
        return None if path_id == hidden[0] else real(self, path_id)

    monkeypatch.setattr(Crosswalk, "find_path", path)
    target = Flaky()
    report = push(scored.run_id, scored.settings, target)
    assert report.failed == 1 and len({ds.StudyInstanceUID for ds in target.taken}) == 1
    assert any("original file" in note for note in report.notes)
    assert scored.planted not in json.dumps(report.to_json())


def test_runs_that_cannot_be_pushed(scored: Any, trained: Any, outbox: Path) -> None:
    with Catalogue.open(scored.settings) as catalogue:
        other = catalogue.start_run("evaluate")
        empty = catalogue.run(scored.run_id)
    with pytest.raises(EmptySelection, match=f"{other}.*evaluate"):
        push(other, scored.settings, Folder(outbox))
    assert empty.kind == "score"


@contextmanager
def listening(inbox: Path, **more: Any) -> Iterator[Listener]:
    config = ListenConfig(port=0, allowed=("NIGHTREAD",), ae_title="PACS", inbox=inbox, reserve_bytes=0, **more)
    with Listener(config, lambda event: None) as listener:
        yield listener


def test_c_store_reaches_a_listener_and_refused_classes_are_reported(scored: Any, tmp_path: Path) -> None:
    with listening(tmp_path / "inbox", grace_seconds=0) as listener:
        target = require_destination(f"PACS@127.0.0.1:{listener.port}", tmp_path)
        report = push(scored.run_id, scored.settings, target)  # our listener takes images, not reports
    assert report.sent["sc"] == 2 and report.failed == 4
    assert sum("of this class" in note for note in report.notes) == 4
    assert len(list((tmp_path / "inbox" / "open").rglob("*.dcm"))) == sum(report.sent.values())


def test_nobody_there_and_a_rejection(tmp_path: Path, originals: Callable) -> None:
    ds = originals("CT")[0].dataset
    with pytest.raises(SendError, match="reached") as caught:
        Peer("PACS", "127.0.0.1", 1).send(ds)
    assert caught.value.passing
    with listening(tmp_path / "inbox", grace_seconds=0) as listener:
        with pytest.raises(SendError, match=r"\(1, 1, 7\)") as caught:
            Peer("OTHER", "127.0.0.1", listener.port).send(ds)
        assert not caught.value.passing
        assert send_with_patience(Peer("PACS", "127.0.0.1", listener.port), ds) == 1
    with pytest.raises(SendError, match="DICOMweb.*reached"):
        Stow(WebService("http://127.0.0.1:1/dicom-web")).send(ds)


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "PACS@host:99999", "@host:1", "ftp://x", "A" * 17 + "@h:1"])
def test_an_invalid_destination_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^--to"):
        require_destination(text, tmp_path)


def test_the_command(scored: Any, outbox: Path) -> None:
    arguments = ["-w", str(scored.settings.workspace), "push", scored.run_id, "--to", "folder", "--out", str(outbox)]
    done = CliRunner().invoke(group, [*arguments, "--only", "sr", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["sent"] == {"seg": 0, "pm": 0, "sc": 0, "sr": 2, "ko": 0}
    assert scored.planted not in done.output
    if shutil.which("dsrdump"):
        report = next(outbox.glob("SR-*.dcm"))
        text = subprocess.run(["dsrdump", "+Pl", str(report)], capture_output=True, text=True, check=True).stdout
        assert "Not for diagnosis" in text and "ae on phantom-mr" in text
