"""The listener: what it accepts, what it answers, and what it stores."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.network import listener
from pipeline.dicom.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.dicom.phantom.objects import SYNTAXES

PLANTED, SENDER = "Zyxwname", "SCANNER1"


def test_echoscu_and_storescu_are_served_and_an_ingest_reads_the_inbox(
    listen: Callable, phantoms: list[Path], dcmtk: Callable, settings: Settings
) -> None:
    running = listen(quiet_seconds=0.2)
    titles = ("-aet", SENDER, "-aec", "NIGHTREAD", "127.0.0.1", running.listener.port)
    assert dcmtk("echoscu", *titles).returncode == 0
    assert dcmtk("storescu", "-R", *titles, *phantoms).returncode == 0
    assert len(running.stored("open")) == 12
    time.sleep(0.25)
    running.listener.sweep()
    assert len(running.stored("complete")) == 12 and running.stored("open") == []
    assert [event["objects"] for event in running.events if event["event"] == "complete"] == [3, 3, 3, 3]
    report = ingest([running.listener.inbox.complete], settings)
    assert (report.added, report.rejected) == (12, {})


def test_every_syntax_is_kept_byte_for_byte(listen: Callable, tmp_path: Path) -> None:
    running = listen()
    manifest = write_phantoms(tmp_path / "all", len(SYNTAXES), "MR", 0, 3, size=32)
    sent = [dcmread(file.path) for file in manifest.files]
    assert {ds.file_meta.TransferSyntaxUID for ds in sent} == set(SYNTAXES)
    for ds in sent:
        assert running.send(ds) == [0]
    stored = {ds.SOPInstanceUID: ds for ds in map(dcmread, running.stored())}
    for ds in sent:
        received = stored[ds.SOPInstanceUID]
        assert received.file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
        assert received == ds


def test_it_offers_the_syntaxes_that_the_reader_decodes() -> None:
    assert len(TRANSFER_SYNTAXES) == 16 and set(SYNTAXES) <= set(TRANSFER_SYNTAXES)
    assert CTImageStorage in STORAGE_CLASSES
    assert "1.2.840.10008.5.1.4.1.1.88.33" not in STORAGE_CLASSES  # Comprehensive SR: no image


@pytest.mark.parametrize(("calling", "called", "diagnostic"), [("STRANGER", "NIGHTREAD", 3), (SENDER, "OTHER", 7)])
def test_unknown_titles_are_rejected(listen: Callable, calling: str, called: str, diagnostic: int) -> None:
    running = listen()
    answers: list[Any] = []
    association = running.associate(calling=calling, called=called)
    answers.append(association.acceptor.primitive)
    assert association.is_rejected
    rejection = answers[0]
    assert (rejection.result, rejection.result_source, rejection.diagnostic) == (1, 1, diagnostic)


def test_more_associations_than_allowed_are_rejected_as_transient(listen: Callable) -> None:
    running = listen(associations=1)
    first = running.associate()
    second = running.associate()
    assert first.is_established and second.is_rejected
    answer = second.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)  # transient, local limit exceeded
    first.release()


def test_idle_connections_do_not_keep_an_allowed_sender_out(
    monkeypatch: pytest.MonkeyPatch, listen: Callable, datasets: list[Dataset]
) -> None:
    """10 connections that never ask for anything are open, then more than may wait: the oldest ones are closed."""
    monkeypatch.setattr(listener, "_WAITING", 13)
    running = listen(associations=2)
    idle = [socket.create_connection(("127.0.0.1", running.listener.port), timeout=240) for _ in range(10)]
    assert running.send(datasets[0]) == [0]
    idle += [socket.create_connection(("127.0.0.1", running.listener.port), timeout=240) for _ in range(10)]
    assert running.send(datasets[1]) == [0]
    assert [connection.recv(1) for connection in idle[:6]] == [b""] * 6
    for connection in idle:
        connection.close()
    monkeypatch.setattr(listener, "_HANDSHAKE_SECONDS", 0.1)  # the end of the test waits for none of them


def test_a_refusal_says_who_called_and_why(listen: Callable) -> None:
    running = listen(associations=1)
    running.associate(calling="STRANGER")
    running.associate(called="OTHER")
    first = running.associate()
    running.associate()
    first.release()
    refused = [event for event in running.events if event["event"] == "rejected"]
    assert [(event["calling"], event["called"]) for event in refused] == [
        ("STRANGER", "NIGHTREAD"), (SENDER, "OTHER"), (SENDER, "NIGHTREAD")
    ]  # fmt: skip
    assert {event["address"] for event in refused} == {"127.0.0.1"}
    assert len({event["reason"] for event in refused}) == 3


def raw_store(running: Any, ds: Dataset, sop_class: str, instance: str, data: bytes, syntax: str) -> int:
    """Send a C-STORE request with arbitrary contents over a context of the data set's own class."""
    association = running.associate(ds)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.DataSet = BytesIO(data)
    context = next(c for c in association.accepted_contexts if c.transfer_syntax[0] == syntax)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return int(answer.Status)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ("another class", 0x0122),
        ("unknown class", 0x0122),
        ("mismatched class", 0xA900),
        ("mismatched instance", 0xA900),
        ("no study", 0xA900),
        ("no pixels", 0xA900),
        ("noise", 0xC000),
        ("truncated", 0xC000),
    ],
)
def test_each_fault_has_its_own_status(listen: Callable, datasets: list[Dataset], wrong: str, status: int) -> None:
    running, ds = listen(), datasets[0]
    sop_class, instance, syntax = str(CTImageStorage), ds.SOPInstanceUID, ds.file_meta.TransferSyntaxUID
    named = {"another class": str(MRImageStorage), "unknown class": "1.2.3.4.5.6"}
    if wrong == "mismatched class":
        ds.SOPClassUID = MRImageStorage
    elif wrong == "mismatched instance":
        instance = f"{instance}.1"
    elif wrong == "no study":
        del ds.StudyInstanceUID
    elif wrong == "no pixels":
        del ds.PixelData
    data = encode(ds, syntax == ImplicitVRLittleEndian, True) or b""
    data = {"noise": b"\x93" * 4096, "truncated": data[:-100]}.get(wrong, data)
    sender = datasets[0] if wrong != "mismatched class" else dcmread(BytesIO(_as_file(datasets[1])))
    assert raw_store(running, sender, named.get(wrong, sop_class), instance, data, syntax) == status
    assert running.stored() == [] and list((running.inbox / "part").iterdir()) == []
    assert running.send(dcmread(BytesIO(_as_file(datasets[2])))) == [0]  # and it goes on


def _as_file(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_duplicates_are_the_same_or_quarantined(listen: Callable, datasets: list[Dataset]) -> None:
    running, ds = listen(quiet_seconds=0.01), datasets[0]
    assert running.send(ds) == [0] and running.send(ds) == [0]
    before = running.stored()[0].read_bytes()
    time.sleep(0.05)
    running.listener.sweep()
    other = dcmread(BytesIO(_as_file(ds)))
    other.PixelData = bytes(len(ds.PixelData))
    elsewhere = dcmread(BytesIO(_as_file(ds)))
    elsewhere.StudyInstanceUID = f"{ds.StudyInstanceUID}.9"
    for conflict in (other, other, elsewhere):
        assert running.send(conflict) == [0]
    assert [path.read_bytes() for path in running.stored()] == [before]
    quarantined = sorted((running.inbox / "quarantine").rglob("*.dcm"))
    assert len(quarantined) == 2 and all(".conflicting-duplicate." in path.name for path in quarantined)
    assert dict(running.listener.receiver.counts) == {"stored": 1, "same": 1, "quarantined": 3}


def test_a_study_that_grows_again_joins_its_complete_part(listen: Callable, datasets: list[Dataset]) -> None:
    running = listen(quiet_seconds=0.05)
    for ds in datasets[:3]:
        assert running.send(ds) == [0]
        time.sleep(0.1)
        running.listener.sweep()
    complete = running.stored("complete")
    assert len(complete) == 3 and len({path.parent for path in complete}) == 1
    assert running.listener.inbox.waiting() == 0


def test_a_dropped_association_leaves_nothing_behind(listen: Callable, datasets: list[Dataset]) -> None:
    running, ds = listen(), datasets[0]
    association = running.associate(ds)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    request.DataSet = BytesIO(encode(ds, False, True) or b"")
    socket_ = association.dul.socket.socket
    real = socket_.send
    sent: list[int] = []

    class Cut:
        def __getattr__(self, name: str) -> Any:
            return getattr(socket_, name)

        def send(self, data: bytes) -> int:
            sent.append(len(data))
            half = data[: len(data) // 2]
            real(half)
            socket_.shutdown(socket.SHUT_RDWR)
            raise OSError("cut")

    association.dul.socket.socket = Cut()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    end = time.monotonic() + 240
    while not (sent and not running.listener._ae.active_associations) and time.monotonic() < end:
        time.sleep(0.05)
    assert sent and running.stored() == [] and list((running.inbox / "part").iterdir()) == []
    assert running.send(datasets[1]) == [0]


def test_no_identifier_is_reported_or_part_of_a_name(listen: Callable, datasets: list[Dataset]) -> None:
    running = listen(quiet_seconds=0.01)
    for ds in datasets[:2]:
        running.send(ds)
    datasets[0].PixelData = bytes(len(datasets[0].PixelData))
    running.send(datasets[0])
    time.sleep(0.05)
    running.listener.sweep()
    names = "\n".join(str(path.relative_to(running.inbox)) for path in running.inbox.rglob("*"))
    for secret in (PLANTED, datasets[0].SOPInstanceUID, datasets[0].StudyInstanceUID, datasets[0].PatientID):
        assert secret not in names and secret not in json.dumps(running.events)
    assert running.events and all(path.stat().st_mode & 0o077 == 0 for path in running.inbox.rglob("*"))


def test_two_listeners_do_not_share_an_inbox(listen: Callable) -> None:
    from pipeline.errors import CatalogueError

    listen()
    with pytest.raises(CatalogueError, match="nightread listen"):
        listen()


def test_the_command_stops_on_sigterm_and_reports_its_counts(
    tmp_path: Path, phantoms: list[Path], dcmtk: Callable
) -> None:

    command = [sys.executable, "-m", "pipeline.cli", "-w", str(tmp_path / "w"), "listen", "--json", "--port", "0"]
    command[1:3] = ["-c", "from pipeline.cli import main; main()"]
    process = subprocess.Popen([*command, "--allow", SENDER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    assert dcmtk("storescu", "-R", "-aet", SENDER, "-aec", "NIGHTREAD", "127.0.0.1", port, *phantoms).returncode == 0
    process.terminate()
    out, err = process.communicate(timeout=240)
    assert json.loads(out.splitlines()[-1]) == {"event": "stopped", "stored": 12, "waiting studies": 4}
    assert process.returncode == 0 and err == "" and PLANTED not in out
