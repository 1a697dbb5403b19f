"""Pulling by C-FIND, C-GET and C-MOVE: objects arrive in the inbox once, and are not requested again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from pydicom import Dataset, dcmread

from pipeline.cli import group
from pipeline.dicom.network import receive
from pipeline.dicom.network.config import PullConfig
from pipeline.dicom.network.inbox import Inbox
from pipeline.errors import CatalogueError, ConfigError, SendError
from pipeline.stages.pacs import pull as stage
from pipeline.stages.pacs.pull import PullReport, pull

PLANTED = "Zyxwname"


def config(pacs: Any, inbox: Path, **more: Any) -> PullConfig:
    return PullConfig(**{"source": pacs.source, "inbox": inbox, "everything": True, "reserve_bytes": 0, **more})


def held(inbox: Path, state: str = "complete") -> list[Path]:
    return sorted((inbox / state).rglob("*.dcm"))


def numbers(report: PullReport) -> tuple[int, int, int, int]:
    return report.studies, report.objects.get("stored", 0), report.fetched_before, report.failed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.dicom.network.patience.FIRST_PAUSE_SECONDS", 0.0)


def test_every_object_arrives_once_as_the_pacs_stores_it(
    pacs: Callable, tmp_path: Path, datasets: list[Dataset]
) -> None:
    running = pacs()
    report = pull(config(running, tmp_path / "inbox"))
    assert numbers(report) == (4, 12, 0, 0) and report.notes == []
    stored = {ds.SOPInstanceUID: ds for ds in map(dcmread, held(tmp_path / "inbox"))}
    for ds in datasets:
        assert stored[ds.SOPInstanceUID] == ds
        assert stored[ds.SOPInstanceUID].file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
    assert held(tmp_path / "inbox", "open") == []
    assert set(running.levels("get")) == {"SERIES"}


def test_complete_series_are_not_requested_again_but_grown_ones_are(pacs: Callable, tmp_path: Path) -> None:
    running = pacs()
    last = running.datasets.pop()
    pull(config(running, tmp_path / "inbox"))
    running.asked.clear()
    again = pull(config(running, tmp_path / "inbox"))
    assert numbers(again) == (4, 0, 4, 0)
    assert running.levels("get") == [] and "IMAGE" not in running.levels("find")
    running.datasets.append(last)
    grown = pull(config(running, tmp_path / "inbox"))
    assert numbers(grown) == (4, 1, 3, 0)
    (request,) = [identifier for kind, _, identifier in running.asked if kind == "get"]
    assert (request.QueryRetrieveLevel, request.SOPInstanceUID) == ("IMAGE", last.SOPInstanceUID)
    assert len(held(tmp_path / "inbox")) == 12


def test_filters_are_sent_and_applied_to_the_answers(pacs: Callable, tmp_path: Path) -> None:
    running = pacs()  # heeds no filter
    days = ["20260102", "20260103", "20260104", ""]
    studies = list(dict.fromkeys(ds.StudyInstanceUID for ds in running.datasets))
    for ds in running.datasets:
        number = studies.index(ds.StudyInstanceUID)
        ds.StudyDate, ds.StudyDescription = days[number], f"Head {number}"
        ds.SeriesDescription, ds.Modality = ("thin axial" if number == 1 else "scout"), ("MR" if number == 2 else "CT")
    dated = {"everything": False, "since": date(2026, 1, 3), "until": date(2026, 1, 4)}
    report = pull(config(running, tmp_path / "dated", **dated))
    assert numbers(report)[:2] == (2, 6)
    assert running.asked[0][2].StudyDate == "20260103-20260104"
    for more, expected in (
        ({"modalities": ("MR",)}, [2]),
        ({"study_description": "head ?"}, [0, 1, 2, 3]),
        ({"study_description": "*3"}, [3]),
        ({"series_description": "THIN*"}, [1]),
        ({"series_description": "thin"}, []),
    ):
        place = tmp_path / f"{list(more.values())}".replace("*", "x").replace("?", "y")
        pull(config(running, place, **{"everything": False, **more}))
        assert sorted({studies.index(dcmread(path).StudyInstanceUID) for path in held(place)}) == expected, more


def test_the_last_days_end_today_where_the_pacs_is() -> None:
    from pipeline.dicom.network.query import Query

    asked = PullConfig(source="A@b:1", inbox=Path("x"), days=2, timezone="Asia/Tokyo")
    query = Query.of(asked, datetime(2026, 2, 28, 20, 0, tzinfo=UTC))  # the first of March in Tokyo
    assert query.dates == "20260228-20260301"


def test_c_move_is_used_where_c_get_is_not_supported(pacs: Callable, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = pacs(get=False, move_to=port)
    with pytest.raises(CatalogueError, match="nightread pull"), Inbox.open(tmp_path / "inbox", "pull"):
        pull(config(running, tmp_path / "inbox"))
    report = pull(config(running, tmp_path / "inbox", method="get"))
    assert report.failed == 4 and all("--method move" in note for note in report.notes)
    report = pull(config(running, tmp_path / "inbox", move_port=port))
    assert numbers(report) == (4, 12, 0, 0) and len(running.levels("move")) == 4
    strange = config(running, tmp_path / "other", method="move", move_port=port, ae_title="STRANGE")
    assert pull(config(pacs(get=False, allowed="STRANGE", move_to=port), tmp_path / "b", **_as(strange))).failed == 4


def _as(other: PullConfig) -> dict[str, Any]:
    return {"method": other.method, "move_port": other.move_port, "ae_title": other.ae_title}


def test_an_unknown_move_destination_is_reported(pacs: Callable, tmp_path: Path) -> None:
    running = pacs(get=False, allowed="STRANGE")
    more = {"method": "move", "move_port": 0, "ae_title": "STRANGE"}
    report = pull(config(running, tmp_path / "inbox", **more))
    assert report.failed == 4 and all("0xa801" in note and "register it there" in note for note in report.notes)


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({"allowed": "OTHER"}, {}, r"\(1, 1, 3\).*AE title"),
        ({}, {"source": "ELSE@127.0.0.1:{port}"}, r"\(1, 1, 7\): \w"),
        ({}, {"source": "PACS@127.0.0.1:1"}, "reached"),
        ({"find_status": [0xA700] * 4}, {}, "0xa700.*resources"),
        ({"find_status": [0xC001]}, {}, "0xc001"),
        ({"find_status": [0xA900]}, {}, "0xa900.*understand"),
    ],
)
def test_a_pacs_that_does_not_answer_queries(
    settings: dict[str, Any], more: dict[str, Any], words: str, pacs: Callable, tmp_path: Path
) -> None:
    running = pacs(**settings)
    more = {name: value.format(port=running.port) for name, value in more.items()}
    with pytest.raises(SendError, match=words):
        pull(config(running, tmp_path / "inbox", **more))
    assert not running.find_status


def test_a_fault_that_passes_is_waited_out_and_one_that_does_not_stops_no_other_study(
    pacs: Callable, tmp_path: Path
) -> None:
    running = pacs(find_status=[0xA700, 0], get_status=[0xA702, 0, 0xC000])
    report = pull(config(running, tmp_path / "inbox"))
    assert numbers(report) == (4, 9, 0, 1)
    assert len(report.notes) == 1 and "0xc000 to C-GET" in report.notes[0]
    assert numbers(pull(config(running, tmp_path / "inbox"))) == (4, 3, 3, 0)


def test_vanished_and_withheld_objects_are_reported(pacs: Callable, tmp_path: Path) -> None:
    running = pacs()
    first = running.datasets[0].StudyInstanceUID
    running.withheld = {running.datasets[-1].SOPInstanceUID}
    running.before_get = lambda: running.datasets.__setitem__(
        slice(None), [ds for ds in running.datasets if ds.StudyInstanceUID != first]
    )
    report = pull(config(running, tmp_path / "inbox"))
    assert (report.vanished, report.failed, report.objects["stored"]) == (1, 1, 8)
    assert any("removed" in note for note in report.notes)
    assert any("did not send 1 of 3 objects" in note for note in report.notes)
    assert len(held(tmp_path / "inbox")) == 6 and len(held(tmp_path / "inbox", "open")) == 2
    running.withheld.clear()
    running.before_get = lambda: None
    assert numbers(pull(config(running, tmp_path / "inbox"))) == (3, 1, 2, 0)
    assert len(held(tmp_path / "inbox")) == 9


def test_refused_objects_are_reported_once_and_not_requested_again(pacs: Callable, tmp_path: Path) -> None:
    running = pacs()
    for ds in running.datasets[:3]:  # a whole series, whose failure the PACS answers with 0xA702
        del ds.PixelData
    report = pull(config(running, tmp_path / "inbox"))
    assert report.objects == {"refused": 3, "stored": 9} and report.failed == 0
    (note,) = report.notes
    assert "0xa900" in note and "no-pixel-data" in note
    running.asked.clear()
    assert numbers(pull(config(running, tmp_path / "inbox"))) == (4, 0, 4, 0)
    assert running.levels("get") == []


def test_a_full_disk_ends_it_and_nothing_is_taken_for_pulled(
    pacs: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = pacs()
    with pytest.raises(CatalogueError, match=str(2**60)):
        pull(config(running, tmp_path / "inbox", reserve_bytes=2**60))
    assert len(running.levels("get")) == 1  # the first refusal was enough
    assert (tmp_path / "inbox" / "pulled.jsonl").read_bytes() == b""
    assert numbers(pull(config(running, tmp_path / "inbox"))) == (4, 12, 0, 0)
    assert receive.OUT_OF_RESOURCES == 0xA700


def test_no_identifier_is_reported_or_part_of_a_name(pacs: Callable, tmp_path: Path, capfd: Any) -> None:
    running = pacs(get_status=[0xC000])
    running.withheld = {running.datasets[-1].SOPInstanceUID}
    report = pull(config(running, tmp_path / "inbox"))
    assert report.failed == 2
    output = json.dumps(report.to_json()) + "".join(capfd.readouterr())
    names = "\n".join(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    output += names + (tmp_path / "inbox" / "pulled.jsonl").read_text()
    for ds in running.datasets:
        for secret in (PLANTED, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID):
            assert secret not in output


def test_several_studies_at_once(pacs: Callable, tmp_path: Path) -> None:
    running = pacs(before_get=threading.Barrier(2, timeout=240).wait)  # two fetches at a time, or none goes on
    assert numbers(pull(config(running, tmp_path / "inbox", associations=4))) == (4, 12, 0, 0)
    assert 2 <= running.largest <= 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"everything": False}, "whole PACS"),
        ({"days": 2, "since": "2026-01-01"}, "either --days"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "is before"),
        ({"since": "yesterday"}, "since"),
        ({"window": "8-9"}, "20:00-06:00"),
        ({"window": "08:00-08:00"}, "all hours"),
        ({"window": "25:00-08:00"}, r"0\.\.23"),
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"modalities": ("ct",)}, "pattern"),
        ({"associations": 0}, "greater"),
    ],
)
def test_contradictory_settings_are_refused(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=words):
        PullConfig(**{"source": "A@b:1", "inbox": tmp_path, "everything": True, **values})


@pytest.mark.parametrize("source", ["PACS", "PACS@host", "ftp://x"])
def test_an_invalid_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(source))):
        pull(PullConfig(source=source, inbox=tmp_path / "inbox", everything=True))


def test_outside_its_hours_it_stops_or_waits(pacs: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = pacs()
    hours = {"window": "20:00-06:00", "timezone": "Europe/Berlin"}
    now = [datetime(2026, 1, 5, 18, 59, tzinfo=UTC)]  # 19:59 in Berlin
    stopped = pull(config(running, tmp_path / "inbox", stop_after_window=True, **hours), now=lambda: now[0])
    assert stopped.stopped == "Outside 20:00-06:00 (Europe/Berlin)." and running.asked == []
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] = datetime(2026, 1, 5, 19, 0, tzinfo=UTC)

    window = stage.Window.wait
    monkeypatch.setattr(stage.Window, "wait", lambda self, clock: window(self, clock, sleep))
    assert numbers(pull(config(running, tmp_path / "inbox", **hours), now=lambda: now[0])) == (4, 12, 0, 0)
    assert len(waited) == 1


def command(pacs: Any, workspace: Path, *more: str) -> list[str]:
    return ["-w", str(workspace), "pull", pacs.source, "--all", "--reserve-gib", "0", "--json", *more]


def test_the_command_and_its_exit_codes(pacs: Callable, tmp_path: Path) -> None:
    running = pacs(get_status=[0xC000])
    first = CliRunner().invoke(group, command(running, tmp_path))
    assert first.exit_code == 10 and json.loads(first.output)["objects"] == {"stored": 9}
    second = CliRunner().invoke(group, command(running, tmp_path))
    assert second.exit_code == 0 and json.loads(second.output)["fetched_before"] == 3
    assert len(held(tmp_path / "inbox")) == 12
    nothing = CliRunner().invoke(group, [*command(running, tmp_path)[:4], "--json"])
    assert nothing.exit_code == 2 and "whole PACS" in nothing.output


def test_a_killed_pull_continues(pacs: Callable, tmp_path: Path) -> None:
    running = pacs()
    running.before_get = lambda: time.sleep(0.1)
    program = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    process = subprocess.Popen([*program, *command(running, tmp_path, "--pause", "0.2")], stdout=subprocess.DEVNULL)
    while len(running.levels("get")) < 2 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(held(tmp_path / "inbox")) + len(held(tmp_path / "inbox", "open"))
    assert 3 <= before < 12
    asked = len(running.levels("get"))
    report = pull(config(running, tmp_path / "inbox"))
    assert report.failed == 0 and report.fetched_before >= 1 and before + report.objects["stored"] == 12
    assert len(running.levels("get")) - asked <= 3
    uids = [dcmread(path).SOPInstanceUID for path in held(tmp_path / "inbox")]
    assert sorted(uids) == sorted(ds.SOPInstanceUID for ds in running.datasets)
