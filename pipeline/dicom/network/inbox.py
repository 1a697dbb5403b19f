"""Inbox: raw objects that arrived over the network, each once, on disk for good before the sender gets a success.

    <inbox>/complete/<study>/<instance>.dcm     complete studies: what `nightread ingest` reads
    <inbox>/open/<study>/<instance>.dcm         studies that may still grow
    <inbox>/quarantine/<study>/<instance>.<code>.<content>.dcm    stored for inspection, never ingested
    <inbox>/part/                               files being written; emptied at the start

Names are pseudonyms of UIDs under a key of the inbox's own, so a rotation of the workspace's key changes no file name.
A file is written under `part`, synced, renamed into its study, and then the folder is synced: wherever the process is
killed, an object exists either whole or not at all. Files in `complete` are never moved, changed or removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pipeline import durable
from pipeline.dicom.identity.keyfile import create_key, make_private_folder
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import CatalogueError, RejectionCode

FOLDERS = ("open", "complete", "quarantine", "part")
_CONFLICT = RejectionCode.CONFLICTING_DUPLICATE


class Kept(StrEnum):
    """Result of adding an object."""

    STORED = "stored"
    SAME = "same"
    QUARANTINED = "quarantined"


@dataclass(slots=True)
class _Growing:
    """A study that may still grow; its lock separates arrival from hand-over."""

    lock: threading.Lock
    last: float


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A study that was moved to `complete`: its pseudonym in this inbox, and the number of new objects."""

    study: str
    objects: int


class Inbox:
    """A folder that only one process at a time writes to; safe to use from several threads. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._growing: dict[str, _Growing] = {}
        self._homes: dict[str, str] = {}
        self._guard = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open or create the inbox, delete half-written files, and index what is present.

        Raises:
            CatalogueError: the folder cannot be written, or another process has the inbox open.
        """
        inbox = cls(Path(os.path.abspath(folder)))  # noqa: PTH100, resolve() would follow links
        try:
            inbox._prepare()
        except OSError as error:
            raise CatalogueError(
                f"The inbox cannot be used: {error.strerror}. Choose a folder on a local disk that this user can write."
            ) from None
        return inbox

    def _prepare(self) -> None:
        make_private_folder(self.folder)
        for name in FOLDERS:
            make_private_folder(self.folder / name)
        durable.sync_folder(self.folder)
        self._lock = _lock(self.folder / ".lock")
        self._names = Pseudonyms(create_key(self.folder / "names.key"))
        for part in (self.folder / "part").iterdir():
            part.unlink()
        for state in ("complete", "open"):
            for study in (self.folder / state).iterdir():
                self._homes |= {file.name: study.name for file in study.iterdir()}
        # Folder times are wall-clock time, quiet periods are measured on the monotonic clock.
        age = time.time() - time.monotonic()
        for study in (self.folder / "open").iterdir():
            self._growing[study.name] = _Growing(threading.Lock(), study.stat().st_mtime - age)

    def close(self) -> None:
        """Release the inbox for other processes."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complete(self) -> Path:
        """Folder that an ingest reads."""
        return self.folder / "complete"

    def count_free_bytes(self) -> int:
        """Return how many bytes may still be written."""
        return shutil.disk_usage(self.folder).free

    @contextlib.contextmanager
    def draft(self, pieces: Sequence[bytes | memoryview]) -> Iterator[Path]:
        """Write bytes to a synced file under `part`; it is deleted after the block unless `keep` moved it.

        Raises:
            OSError: the disk is full or broken; nothing remains.
        """
        path = self.folder / "part" / uuid.uuid4().hex
        try:
            durable.write_synced(path, pieces)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, draft: Path, study_uid: str, sop_uid: str) -> Kept:
        """Move a draft to its place; durable when this returns. Existing objects are never replaced.

        Args:
            draft: a synced file from `draft`.
            study_uid, sop_uid: the real UIDs; only their pseudonyms are written to disk.

        Raises:
            OSError: the disk is full or broken. Sending the object again is safe.
        """
        study, name = self._names.study(study_uid), f"{self._names.instance(sop_uid)}.dcm"
        with self._study(study) as growing:
            earlier = self._where(study, name)
            if earlier is not None:
                return self._again(draft, earlier, study, name)
            self._rename(draft, self.folder / "open" / study / name)
            self._homes[name] = study
            growing.last = time.monotonic()
            return Kept.STORED

    def has(self, sop_uid: str) -> bool:
        """Whether an object with this SOP Instance UID is in the inbox, in any study."""
        return f"{self._names.instance(sop_uid)}.dcm" in self._homes

    def pseudonym(self, kind: Literal["study", "series"], uid: str) -> str:
        """Return the name of a study or series in this inbox."""
        return self._names.study(uid) if kind == "study" else self._names.series(uid)

    def _where(self, study: str, name: str) -> Path | None:
        """Return the path of an object with this SOP Instance UID, whichever study it arrived in, or None."""
        home = self._homes.get(name, study)
        places = (self.folder / state / home / name for state in ("open", "complete"))
        return next((path for path in places if path.exists()), None)

    def _again(self, draft: Path, earlier: Path, study: str, name: str) -> Kept:
        # Whole files are compared: the same object in another transfer syntax is quarantined too.
        if filecmp.cmp(draft, earlier, shallow=False):
            return Kept.SAME
        stem = name.removesuffix(".dcm")
        target = self.folder / "quarantine" / study / f"{stem}.{_CONFLICT.value}.{_digest(draft)}.dcm"
        if not target.exists():
            self._rename(draft, target)
        return Kept.QUARANTINED

    def _rename(self, draft: Path, target: Path) -> None:
        folder = target.parent
        if not folder.exists():
            make_private_folder(folder)
            durable.sync_folder(folder.parent)
        # The content was synced under `part`. Once the name is synced too, the sender may be sent a success.
        durable.move(draft, target)

    @contextlib.contextmanager
    def _study(self, study: str) -> Iterator[_Growing]:
        while True:
            with self._guard:
                growing = self._growing.setdefault(study, _Growing(threading.Lock(), time.monotonic()))
            with growing.lock:
                if self._growing.get(study) is growing:  # otherwise it was handed over while we waited for the lock
                    yield growing
                    return

    def hand_over(self, quiet_seconds: float) -> list[HandedOver]:
        """Move studies without new objects for `quiet_seconds` to `complete`, and return them.

        A study that grows again after it was completed is merged with the files there. After an interruption the next
        call moves the rest.
        """
        with self._guard:
            due = [s for s, g in self._growing.items() if time.monotonic() - g.last >= quiet_seconds]
        return [done for study in sorted(due) if (done := self._complete(study, quiet_seconds)) is not None]

    def finish(self, study_uid: str) -> HandedOver | None:
        """Move one study to `complete` now; return None where no part of it was waiting."""
        study = self._names.study(study_uid)
        return self._complete(study, 0) if study in self._growing else None

    def _complete(self, study: str, quiet_seconds: float) -> HandedOver | None:
        growing = self._growing[study]
        with growing.lock:
            if time.monotonic() - growing.last < quiet_seconds:
                return None
            source, target = self.folder / "open" / study, self.complete / study
            count = _move(source, target)
            with self._guard:
                del self._growing[study]
        return HandedOver(study, count) if count else None

    def waiting(self) -> int:
        """Return the number of studies that may still grow."""
        return len(self._growing)


def _move(source: Path, target: Path) -> int:
    if not source.exists():
        return 0
    names = sorted(file.name for file in source.iterdir())
    if not names:
        source.rmdir()
    elif not target.exists():
        durable.move(source, target)
    else:
        for name in names:
            durable.move(source / name, target / name)
        source.rmdir()
    durable.sync_folder(source.parent)
    return len(names)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CatalogueError(
            "Another process has this inbox open. Stop the other `nightread listen` or `nightread pull`, or choose "
            "another folder with --inbox."
        ) from None
    return descriptor
