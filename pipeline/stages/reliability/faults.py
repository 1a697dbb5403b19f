"""Faults that befall a night: how each is brought about, and what a night needs besides to run undisturbed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import ClassVar

from pipeline import wall_clock
from pipeline.errors import ConfigError
from pipeline.stages.reliability.forked import Strike, beside
from pipeline.stages.reliability.whole_night import Hospital, run_night

Mark = Callable[[str], None]
HOST = "127.0.0.1"
CLONE_NEWNS = 0x00020000  # sched.h


@dataclass(frozen=True, slots=True)
class Blow:
    """How one night is disturbed.

    Attributes:
        after: seconds into the night after which `strike` is called; None never.
        strike: brings the fault about from outside, given the process id of the night.
        within: called in the night's own process before it begins.
    """

    after: float | None = None
    strike: Strike = lambda _: None
    within: Callable[[], object] = lambda: None


class Fault:
    """No fault: the base of all, with what a night needs to run undisturbed."""

    name: ClassVar[str] = "none"

    def furnish(self, hospital: Hospital) -> Hospital:
        """Return the hospital with the services that the fault will take away."""
        return hospital

    @contextlib.contextmanager
    def site(self, folder: Path) -> Iterator[Path]:
        """Yield an empty folder for workspace and outbox while the block runs."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder

    @contextlib.contextmanager
    def healthy(self, hospital: Hospital) -> Iterator[None]:
        """Keep the services of a hospital running while the block runs."""
        yield

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """Yield the blow of one night, and lift the fault at the end of the block.

        Args:
            hospital: where it strikes.
            share: how far into the night, from 0 to 1.
            seconds: length of an undisturbed night.
            number: of the disturbed night, from 0; variants of a fault take turns.
        """
        yield Blow()

    def night(self, hospital: Hospital, mark: Mark) -> None:
        """Run a night in the present process."""
        run_night(hospital.settings, [hospital.inbox], hospital.destination, mark)


class DiskFull(Fault):
    """The file system of workspace, outbox and temporary files is full after so many bytes: a tmpfs of that size."""

    name = "disk-full"
    GROWTH = 8 * 2**20  # about what a night writes

    @contextlib.contextmanager
    def site(self, folder: Path) -> Iterator[Path]:
        """Mount a file system of its own; see `Fault.site`.

        Raises:
            ConfigError: this user may not mount one.
        """
        with super().site(folder) as place:
            _leave_mounts()
            _mount(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(place)])
            try:
                yield place
            finally:
                subprocess.run(["umount", "-l", str(place)], check=False)

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """Leave room for the cube of a share of `GROWTH`, since the first writes are small; see `Fault.broken`."""
        place = hospital.workspace.parent
        temporary = place / "tmp"
        temporary.mkdir(exist_ok=True)
        used = shutil.disk_usage(place).used
        _resize(place, used + int(share**3 * self.GROWTH))
        try:
            yield Blow(within=lambda: setattr(tempfile, "tempdir", str(temporary)))
        finally:
            _resize(place, 256 * 2**20)
            shutil.rmtree(temporary)


@cache
def _leave_mounts() -> None:
    """Let this process have mounts of its own, which end with it however it ends."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)


def _resize(place: Path, size_bytes: int) -> None:
    _mount(["mount", "-o", f"remount,size={size_bytes}", str(place)])


def _mount(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"A small file system cannot be mounted ({done.stderr.strip()[:200]}). Run the command as root, or in a "
            "name space of your own: unshare --map-root-user --mount nightread benchmark reliability --fault disk-full"
        )


class DatabaseLocked(Fault):
    """Another process locks a database for longer than it is waited for: catalogue, MLflow, crosswalk in turn."""

    name = "database-locked"
    FILES = ("catalogue.db", "mlflow/mlflow.db", "identity/crosswalk.db")
    WAIT_SECONDS = 1.0

    def furnish(self, hospital: Hospital) -> Hospital:
        """Wait for a second only, and not for a minute."""
        return replace(hospital, wait_seconds=self.WAIT_SECONDS)

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """Lock a database from a moment to the end of the night."""
        file = hospital.workspace / self.FILES[number % len(self.FILES)]
        with contextlib.ExitStack() as stack:
            yield Blow(share * seconds, lambda _: stack.enter_context(beside(lambda ready: _hold(file, ready))))


def _hold(file: Path, ready: Callable[[], None]) -> None:
    database = sqlite3.connect(file, timeout=60, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    ready()
    time.sleep(3600)


class ClockJumped(Fault):
    """The clock of the night's process jumps by a day, forwards and backwards in turn."""

    name = "clock-jumped"

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """Move the project's wall clock at a moment, in the night's process."""
        by = timedelta(days=-1 if number % 2 else 1)

        def jump_later() -> None:
            timer = threading.Timer(share * seconds, wall_clock.move, [by])
            timer.daemon = True
            timer.start()

        yield Blow(within=jump_later)


class PacsGone(Fault):
    """The PACS dies with an object in its hands, or refuses all from there on, in turn."""

    name = "pacs-gone"
    OBJECTS = 10  # of the two findings that a night flags

    def __init__(self) -> None:
        self.port = free_port()

    def furnish(self, hospital: Hospital) -> Hospital:
        """Send to a PACS, which writes to the outbox."""
        return replace(hospital, pacs=f"ARCHIVE@{HOST}:{self.port}")

    @contextlib.contextmanager
    def healthy(self, hospital: Hospital) -> Iterator[None]:
        """Run a PACS that takes everything."""
        with beside(lambda ready: _serve_pacs(self.port, hospital.outbox, ready)):
            yield

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """Run a PACS that takes a share of the objects."""
        last, dies = int(share * self.OBJECTS), number % 2 == 0
        with beside(lambda ready: _serve_pacs(self.port, hospital.outbox, ready, last, dies)):
            yield Blow()


def _serve_pacs(port: int, folder: Path, ready: Callable[[], None], last: int = 10**6, dies: bool = False) -> None:
    """Store objects as files; after `last` of them, die with the next one stored and unanswered, or refuse all."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    taken: list[str] = []

    def take(event: evt.Event) -> int:
        """Store one object and return the status."""
        if len(taken) >= last and not dies:
            return 0xA700  # out of resources
        taken.append(event.request.AffectedSOPInstanceUID)
        event.dataset.file_meta = event.file_meta
        event.dataset.save_as(folder / f"{taken[-1]}.dcm", enforce_file_format=True)
        if len(taken) > last:
            os._exit(1)
        return 0

    entity = AE("ARCHIVE")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.start_server((HOST, port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    ready()
    time.sleep(3600)


def free_port() -> int:
    """Return a TCP port of this machine that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
