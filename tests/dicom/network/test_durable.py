"""Acknowledged objects are on disk: the order of system calls, `kill -9`, and full disks."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE

from pipeline import durable
from pipeline.dicom.network.address import hold_reactor

SENDER = "SCANNER1"
MANY = int(os.environ.get("NIGHTREAD_KILL_OBJECTS", "2000"))  # of the slow test; 20000 take some minutes


def start(inbox: Path, *prefix: str) -> tuple[subprocess.Popen[str], int]:
    """Start `nightread listen` in a process of its own; returns it and its port."""
    program = "from pipeline.cli import main; main()"
    options = ["--json", "--port", "0", "--allow", SENDER, "--inbox", str(inbox), "--reserve-gib", "0"]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", program, "-w", str(inbox.parent / "w"), "listen", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would hold it up
    return process, port


def send(port: int, files: list[Path], acknowledged: list[str]) -> None:
    """Send files until done or cut off, and record the SOP Instance UIDs of acknowledged ones."""
    entity = AE(ae_title=SENDER)
    first = dcmread(files[0], stop_before_pixels=True)
    entity.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="NIGHTREAD")
    # Command and data set are two writes; the second would wait for the other side's delayed acknowledgement.
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for file in files:
            ds = dcmread(file)
            hold_reactor(association)
            if association.send_c_store(ds).get("Status") == 0:
                acknowledged.append(ds.SOPInstanceUID)
        association.release()
    except RuntimeError:  # the association is gone
        pass


def sending(port: int, files: list[Path], acknowledged: list[str]) -> list[threading.Thread]:
    """Start four senders that share the files."""
    senders = [threading.Thread(target=send, args=(port, files[part::4], acknowledged)) for part in range(4)]
    for sender in senders:
        sender.start()
    return senders


def copies(template: Path, folder: Path, count: int) -> list[Path]:
    """Write one object `count` times under SOP Instance UIDs of its own, in studies of ten."""
    folder.mkdir()
    ds = dcmread(template)
    files = []
    for number in range(count):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number}"
        ds.StudyInstanceUID = f"1.2.826.0.2.{number // 10}"
        files.append(folder / f"{number}.dcm")
        ds.save_as(files[-1])
    return files


def stored(inbox: Path) -> list[str]:
    """The SOP Instance UIDs of the stored objects; every file must be complete."""
    objects = [dcmread(path) for state in ("open", "complete") for path in (inbox / state).rglob("*.dcm")]
    assert all(len(ds.PixelData) == ds.Rows * ds.Columns * 2 for ds in objects)
    return [ds.SOPInstanceUID for ds in objects]


@pytest.mark.parametrize("count", [120, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_acknowledged_is_a_subset_of_stored_after_kill_and_resending_completes(
    count: int, tmp_path: Path, phantoms: list[Path]
) -> None:
    files, inbox = copies(phantoms[0], tmp_path / "sent", count), tmp_path / "inbox"
    process, port = start(inbox)
    acknowledged: list[str] = []
    senders = sending(port, files, acknowledged)
    while len(acknowledged) < count // 5:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    for sender in senders:
        sender.join()
    process.wait()
    there = stored(inbox)
    assert count // 5 <= len(acknowledged) < count and len(there) == len(set(there))
    assert set(acknowledged) <= set(there)

    process, port = start(inbox)
    again: list[str] = []
    for sender in sending(port, files, again):
        sender.join()
    process.terminate()
    process.wait(120)
    assert len(again) == count
    assert sorted(stored(inbox)) == sorted(f"1.2.826.0.1.{number}" for number in range(count))
    print(f"{count} sent: {len(acknowledged)} acknowledged and {len(there)} stored when killed, {count} in the end")
    assert list((inbox / "part").iterdir()) == []


def test_file_then_rename_then_folder_are_synced_before_the_response(tmp_path: Path, phantoms: list[Path]) -> None:
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode:
        pytest.skip("strace is not installed, or tracing is forbidden")
    trace, inbox = tmp_path / "trace", tmp_path / "inbox"
    calls = "trace=fsync,rename,openat,close,sendto"
    process, port = start(inbox, "strace", "-f", "-o", str(trace), "-e", calls, "-s", "8")
    acknowledged: list[str] = []
    send(port, phantoms[:1], acknowledged)
    child = next(int(line.split()[0]) for line in trace.read_text().splitlines())
    os.kill(child, signal.SIGTERM)
    process.wait(30)
    assert len(acknowledged) == 1
    story = _story(trace.read_text().splitlines(), str(inbox))
    # twice a folder before the last rename: `open` itself has got the new study folder
    assert story[-5:] == ["fsync file", "fsync folder", "rename", "fsync folder", "P-DATA"]


def _story(lines: list[str], inbox: str) -> list[str]:
    """Return the events of the object, in order: the use of descriptors, and when a P-DATA-TF (type 4) was sent."""
    names: dict[tuple[str, str], str] = {}
    story: list[str] = []
    for line in lines:
        if match := re.search(r'openat\(AT_FDCWD, "([^"]+)"\.*, .* = (\d+)$', line):
            names[("fd", match[2])] = match[1]
        elif match := re.search(r"fsync\((\d+)", line):
            folder = Path(names.get(("fd", match[1]), "?")).suffix == "" and _is_folder(names, match[1])
            story.append("fsync folder" if folder else "fsync file")
        elif "rename(" in line and "/part/" in line:
            story.append("rename")
        elif re.search(r'sendto\(\d+, "\\4\\0', line):
            story.append("P-DATA")
    return story


def _is_folder(names: dict[tuple[str, str], str], descriptor: str) -> bool:
    return Path(names.get(("fd", descriptor), "?")).is_dir()


def test_the_order_holds_in_this_process_too(
    listen: Callable, datasets: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = listen()
    story: list[str] = []

    def noted(name: str, call: Callable) -> Callable:
        def run(*arguments: Any) -> Any:
            story.append(name)
            return call(*arguments)

        return run

    answer = running.listener.receiver.answer
    monkeypatch.setattr(durable, "write_synced", noted("file", durable.write_synced))
    monkeypatch.setattr(durable, "sync_folder", noted("folder", durable.sync_folder))
    monkeypatch.setattr(Path, "rename", noted("rename", Path.rename))
    assert running.send(datasets[0]) == [0]
    assert story == ["file", "folder", "rename", "folder"] and callable(answer)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("where", ["write_synced", "sync_folder"])
def test_a_full_disk_is_refused_and_nothing_is_lost(
    listen: Callable, datasets: list[Dataset], monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    running = listen()
    assert running.send(datasets[0]) == [0]

    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(durable, where, full)
        assert running.send(datasets[1]) == [0x0110 if code == errno.EIO else 0xA700]
    assert list((running.inbox / "part").iterdir()) == []
    assert running.send(datasets[0], datasets[1]) == [0, 0]
    assert len(running.stored()) == 2


def test_the_reserve_is_left_free(listen: Callable, datasets: list[Dataset]) -> None:
    running = listen(reserve_bytes=2**60)
    assert running.send(datasets[0]) == [0xA700]
    assert running.events[-1] == {"event": "refused", "status": "0xa700", "reason": "disk full"}


def test_a_really_full_disk(tmp_path: Path, phantoms: list[Path]) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    small = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=192k none {mount} && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace with a small tmpfs is not to be had here")
    process, port = start(mount / "inbox", *small)
    files, acknowledged = copies(phantoms[0], tmp_path / "sent", 60), []
    send(port, files, acknowledged)
    survivors = list(Path(f"/proc/{process.pid}/root{mount}/inbox/open").rglob("*.dcm"))
    assert 10 < len(acknowledged) < 60 and len(survivors) == len(acknowledged)
    process.terminate()
    process.wait(30)
