"""Inbox: raw objects that arrived over the network, each once, on disk for good before the sender gets a success.

    <inbox>/complete/<study>/<instance>.dcm     complete studies: what `nightread ingest` reads
    <inbox>/open/<study>/<instance>.dcm         studies that may still grow
    <inbox>/quarantine/<study>/<instance>.<code>.<content>.dcm    stored for inspection, never ingested
    <inbox>/part/, <inbox>/part-pull/           files being written by the listener and by a pull; emptied at its start
    <inbox>/locks/                              one hand at a time on a study (`inbox_locks`)

Names are pseudonyms of UIDs under a key of the inbox's own, so a rotation of the workspace's key changes no file name.
A file is written under `part`, synced, renamed into its study, and then the folder is synced: wherever the process is
killed, an object exists either whole or not at all. Files in `complete` are never moved, changed or removed.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pipeline import durable
from pipeline.dicom.identity.keyfile import create_key, make_private_folder
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.network.inbox_locks import Role, StudyLocks, lock_role
from pipeline.errors import CatalogueError, RejectionCode

STATES = ("open", "complete", "quarantine")
PARTS: dict[Role, str] = {"listen": "part", "pull": "part-pull"}
_CONFLICT = RejectionCode.CONFLICTING_DUPLICATE


IsSame = Callable[[Path, Path], bool]


def _are_equal_files(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


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
    """A folder that a listener and a pull write to, at the same time; safe to use from several threads. A context
    manager.
    """

    def __init__(self, folder: Path, role: Role) -> None:
        self.folder, self._role = folder, role
        self._part = folder / PARTS[role]
        self._growing: dict[str, _Growing] = {}
        self._homes: dict[str, str] = {}
        self._guard = threading.Lock()

    @classmethod
    def open(cls, folder: Path, role: Role = "listen") -> Self:
        """Open or create the inbox, delete this role's half-written files, and index what is present.

        Raises:
            CatalogueError: the folder cannot be written, or another process has the inbox open in the same role.
        """
        inbox = cls(Path(os.path.abspath(folder)), role)  # noqa: PTH100, resolve() would follow links
        try:
            inbox._prepare()
        except OSError as error:
            raise CatalogueError(
                f"The inbox cannot be used: {error.strerror}. Choose a folder on a local disk that this user can write."
            ) from None
        return inbox

    def _prepare(self) -> None:
        make_private_folder(self.folder)
        for name in (*STATES, self._part.name):
            make_private_folder(self.folder / name)
        durable.sync_folder(self.folder)
        self._lock = lock_role(self.folder, self._role)
        self._studies = StudyLocks(self.folder / "locks")
        self._names = Pseudonyms(create_key(self.folder / "names.key"))
        for part in self._part.iterdir():
            part.unlink()
        for state in ("open", "complete"):  # in the direction in which the other role may move a study meanwhile
            for study in list((self.folder / state).iterdir()):
                self._index(study, state)

    def _index(self, study: Path, state: str) -> None:
        """Note a study's objects and, if it is open, when it last grew; it may have been moved meanwhile."""
        with self._studies.hold(study.name), contextlib.suppress(FileNotFoundError):
            self._homes |= {file.name: study.name for file in study.iterdir()}
            if state == "open":
                # Folder times are wall-clock time, quiet periods are measured on the monotonic clock. A time in the
                # future counts as now: after a correction of the clock a study would otherwise wait until then.
                self._growing[study.name] = _Growing(threading.Lock(), time.monotonic() - _age(study, unknown=0.0))

    def close(self) -> None:
        """Release the inbox for other processes."""
        self._studies.close()
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
        """Write bytes to a synced file of this role; it is deleted after the block unless `keep` moved it.

        Raises:
            OSError: the disk is full or broken; nothing remains.
        """
        path = self._part / uuid.uuid4().hex
        try:
            durable.write_synced(path, pieces)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, draft: Path, study_uid: str, sop_uid: str, is_same: IsSame = _are_equal_files) -> Kept:
        """Move a draft to its place; durable when this returns. Existing objects are never replaced.

        Args:
            draft: a synced file from `draft`.
            study_uid, sop_uid: the real UIDs; only their pseudonyms are written to disk.
            is_same: whether two files hold the same object; asked where their bytes differ.

        Raises:
            OSError: the disk is full or broken. Sending the object again is safe.
        """
        study, name = self._names.study(study_uid), f"{self._names.instance(sop_uid)}.dcm"
        with self._study(study) as growing:
            earlier = self._where(study, name)
            if earlier is not None:
                return self._again(draft, earlier, study, name, is_same)
            self._rename(draft, self.folder / "open" / study / name)
            self._homes[name] = study
            growing.last = time.monotonic()
            return Kept.STORED

    def has(self, sop_uid: str, study_uid: str) -> bool:
        """Whether an object is in the inbox: in its study, whoever wrote it, or in another one when this was opened."""
        name = f"{self._names.instance(sop_uid)}.dcm"
        return name in self._homes or self._where(self._names.study(study_uid), name) is not None

    def pseudonym(self, kind: Literal["study", "series"], uid: str) -> str:
        """Return the name of a study or series in this inbox."""
        return self._names.study(uid) if kind == "study" else self._names.series(uid)

    def _where(self, study: str, name: str) -> Path | None:
        """Return the path of an object with this SOP Instance UID, whichever study it arrived in, or None."""
        home = self._homes.get(name, study)
        places = (self.folder / state / home / name for state in ("open", "complete"))
        return next((path for path in places if path.exists()), None)

    def _again(self, draft: Path, earlier: Path, study: str, name: str, is_same: IsSame) -> Kept:
        if _are_equal_files(draft, earlier) or is_same(draft, earlier):
            return Kept.SAME
        stem = name.removesuffix(".dcm")
        target = self.folder / "quarantine" / study / f"{stem}.{_CONFLICT.value}.{_digest(draft)}.dcm"
        if not target.exists():
            self._rename(draft, target)
        return Kept.QUARANTINED

    def _rename(self, draft: Path, target: Path) -> None:
        make_private_folder(target.parent)
        # The content was synced under `part`. Once the name is synced too, the sender may be sent a success.
        durable.move(draft, target)

    @contextlib.contextmanager
    def _study(self, study: str) -> Iterator[_Growing]:
        while True:
            with self._guard:
                growing = self._growing.setdefault(study, _Growing(threading.Lock(), time.monotonic()))
            with growing.lock:
                if self._growing.get(study) is growing:  # otherwise it was handed over while we waited for the lock
                    with self._studies.hold(study):
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
        source, target = self.folder / "open" / study, self.complete / study
        with growing.lock, self._studies.hold(study):
            # The other role may have added to it, which only the folder's time tells.
            if min(time.monotonic() - growing.last, _age(source, unknown=quiet_seconds)) < quiet_seconds:
                return None
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


def _age(folder: Path, unknown: float) -> float:
    """Return the seconds since a folder changed; `unknown` where it is missing or its time is in the future."""
    try:
        age = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return unknown
    return age if age >= 0 else unknown
