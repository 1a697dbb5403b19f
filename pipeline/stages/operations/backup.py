"""Backup of a workspace in use into one tar archive, and of identifying data into another, or not at all.

The archive holds `nightread-backup.json` (format, kind, and a token that the two archives share), the files under their
paths relative to the workspace, and `manifest.jsonl`: size, time, mode and SHA-256 of each, in the archive's order.

It is consistent while others write: databases come first, as snapshots by SQLite's backup API, and files afterwards,
since a file is always written before the row that names it. The crosswalk comes after the catalogue for the same
reason, and a lock keeps a key rotation out meanwhile. Memory does not grow with the number or the size of the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self
from urllib.parse import quote

import pipeline
from pipeline import durable
from pipeline.config import Settings
from pipeline.dicom.identity.keyfile import KeyLock
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.operations.workspace_parts import list_files, parts

FORMAT = 1
HEAD, MANIFEST = "nightread-backup.json", "manifest.jsonl"
Kind = Literal["workspace", "identity"]
OnProgress = Callable[[int, int | None], None]
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Result of a backup: files and bytes of both archives, and the parts outside the workspace."""

    files: int
    size_bytes: int
    identity: bool
    left_out: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def back_up(
    settings: Settings,
    file: Path,
    identity: Path | None = None,
    without_outside: bool = False,
    on_progress: OnProgress | None = None,
) -> BackupReport:
    """Save a workspace, which may be in use, into new files that only their owner may read.

    Args:
        settings: the workspace.
        file: the archive to create.
        identity: a second archive to create, with identifying data: the pseudonym key, the crosswalk, inbox and outbox.
        without_outside: leave out parts outside the workspace instead of raising an error.
        on_progress: called with (files done, None).

    Raises:
        ConfigError: there is no workspace, a target exists or is unsuitable, or a part is outside the workspace.
        ArtefactError: a file of the workspace cannot be read, or changes while it is read.
    """
    outside = [part.name for part in parts(settings) if part.outside]
    _check(settings, [place for place in (file, identity) if place is not None], () if without_outside else outside)
    token, secret = uuid.uuid4().hex, settings.key_file.exists()
    with contextlib.closing(KeyLock(settings.key_file)) if secret else contextlib.nullcontext():
        saved = [_save(settings, file, "workspace", token, on_progress)]
        if identity is not None:
            saved.append(_save(settings, identity, "identity", token, on_progress))
    return BackupReport(sum(n for n, _ in saved), sum(size for _, size in saved), identity is not None, outside)


def _check(settings: Settings, targets: list[Path], outside: tuple[str, ...] | list[str]) -> None:
    workspace = settings.workspace.resolve()
    if not (workspace / "catalogue.db").exists() and settings.catalogue_url is None:
        raise ConfigError(
            f"{settings.workspace} is not a workspace: it has no catalogue. Choose one with nightread -w FOLDER"
        )
    for target in targets:
        if target.exists():
            raise ConfigError(f"{target} exists already, and a backup never overwrites files. Choose a new name.")
        if target.resolve().is_relative_to(workspace):
            raise ConfigError(f"{target} is inside the workspace to be saved. Choose a path outside it.")
    for part in parts(settings):
        if part.name in outside:
            raise ConfigError(
                f"The {part.name} is outside the workspace, at {part.where}. Save it separately ({part.how}), and "
                "leave it out here with --without-outside."
            )


def _save(settings: Settings, file: Path, kind: Kind, token: str, on_progress: OnProgress | None) -> tuple[int, int]:
    """Write one archive; return its number of files and their bytes."""
    try:
        with durable.writing(file, mode=0o600) as part, part.open("wb") as stream, _Archive(stream) as archive:
            secret = settings.key_file.exists()
            archive.head({"kind": kind, "token": token, "has_key": secret})
            for databases in (True, False):  # all of them first: see the module's docstring
                for name, path in list_files(settings.workspace, kind == "identity"):
                    if (path.suffix == ".db") == databases:
                        _add(archive, name, path, file.parent)
                        if on_progress is not None:
                            on_progress(archive.files, None)
    except OSError as error:
        raise ArtefactError(
            f"The backup cannot be written: {error.strerror or error}. Nothing was written. Free some space, and "
            "start it again."
        ) from None
    return archive.files, archive.size_bytes


def _add(archive: _Archive, name: PurePosixPath, path: Path, scratch: Path) -> None:
    # If the file is replaced meanwhile, our open file stays unchanged; a deleted checkpoint or cache is not needed.
    with contextlib.suppress(FileNotFoundError), _opened(path, scratch) as source:
        archive.add(name, source, path.stat())


@contextlib.contextmanager
def _opened(path: Path, scratch: Path) -> Iterator[IO[bytes]]:
    """Open a file, a database as a snapshot in `scratch`."""
    with path.open("rb") as source:
        if path.suffix != ".db" or source.read(len(_SQLITE)) != _SQLITE:
            source.seek(0)
            yield source
            return
    with tempfile.TemporaryDirectory(prefix=".nightread-backup-", dir=scratch) as folder:
        copy = Path(folder) / path.name
        _snapshot(path, copy)
        with copy.open("rb") as source:
            yield source


def _snapshot(database: Path, copy: Path) -> None:
    try:
        # mode=rw, as a database with a write-ahead log cannot be opened read-only; never rwc, which would create one.
        with (
            contextlib.closing(sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=60)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise ArtefactError(
            f"The database {database.name} cannot be saved ({error}). Check it with `nightread doctor`, or restore the "
            "last backup."
        ) from None


class _Archive:
    """A tar archive written to a stream, with a manifest of its content; a context manager."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115, closed in exit
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115
        self.files, self.size_bytes = 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lines, self._tar:
            if kind is None:
                size = self._lines.tell()
                self._lines.seek(0)
                self._put(MANIFEST, self._lines, size, 0o600, 0)

    def head(self, values: dict[str, Any]) -> None:
        """Write the first member, which describes the archive."""
        made = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"format": FORMAT, "nightread": pipeline.__version__, "made_at": made, **values}).encode()
        self._put(HEAD, io.BytesIO(text), len(text), 0o600, 0)

    def add(self, name: PurePosixPath, source: IO[bytes], about: os.stat_result) -> None:
        """Add an open file, with the time and mode of `about`."""
        size, hashed = os.fstat(source.fileno()).st_size, _Hashed(source)
        mode = about.st_mode & 0o777
        self._put(str(name), hashed, size, mode, about.st_mtime)
        line = {"name": str(name), "size": size, "sha256": hashed.digest.hexdigest(), "mtime_ns": about.st_mtime_ns}
        self._lines.write(json.dumps(line).encode() + b"\n")
        self.files, self.size_bytes = self.files + 1, self.size_bytes + size

    def _put(self, name: str, source: Any, size: int, mode: int, modified: float) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, mode, int(modified)
        self._tar.addfile(info, source)
        self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory


class _Hashed:
    """A reader that hashes the bytes read from a file."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self.digest = source, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next bytes, and hash them."""
        data = self._source.read(size)
        self.digest.update(data)
        return data
