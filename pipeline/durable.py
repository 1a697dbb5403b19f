"""Atomic, durable writes: after a crash or a power cut a file is the old one or the new one, whole, and never empty.

The order is always the same: write a temporary file beside the target, fsync it, rename it, fsync the folder. Without
the first fsync a file system may keep the rename and lose the content; without the second it may lose the rename. No
other module renames or fsyncs by itself, and a test enforces it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

PART = ".part"  # ends the name of everything that is being written
PRIVATE = 0o700  # mode of a workspace


def write(
    path: Path, data: bytes | str, *, mode: int | None = None, staging: Path | None = None, lasting: bool = True
) -> Path:
    """Replace the file at `path` by `data` (text as UTF-8) in one step, and return `path`; see `writing`."""
    make_folder(path.parent)
    part = _part_of(path, staging)
    try:
        _write_new(part, [data.encode() if isinstance(data, str) else data], mode, lasting)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)
    return path


@contextlib.contextmanager
def writing(
    path: Path, *, mode: int | None = None, staging: Path | None = None, lasting: bool = True
) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends it becomes `path`, and when the block raises it is gone.

    Args:
        path: the target; missing parent folders are created.
        mode: of the file, from the first byte on (0o600 for what others must not read); default 0o666 less the umask.
        staging: an existing folder of the same file system for the temporary file; default the target's own folder.
        lasting: False for a cache only, whose reader takes a damaged file for absent: atomic, but not synced, since
            computing it again costs less than an fsync per file.

    Raises:
        OSError: the disk is full, read-only or broken; the target is what it was.
    """
    make_folder(path.parent)
    part = _part_of(path, staging)
    try:
        created = _create_empty(part, 0o666 if mode is None else mode)
        yield part
        part.chmod(created if mode is None else mode)  # safetensors replaces the file by a 0o600 one
        if lasting:
            _sync(part)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    if lasting:
        sync_folder(path.parent)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; when the block ends it becomes `path`, which must not exist or be empty.

    Every file in it is synced before the rename. A folder with content cannot be replaced in one step on any file
    system, so a caller gives each version a new name.

    Raises:
        OSError: the disk is full, read-only or broken, or `path` is a folder with content; `path` is what it was.
    """
    make_folder(path.parent)
    part = path.parent / f".{path.name}.{uuid.uuid4().hex}{PART}"
    try:
        part.mkdir()
        yield part
        for folder, _, names in os.walk(part, topdown=False):
            for name in names:
                _sync(Path(folder) / name)
            sync_folder(Path(folder))
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(path.parent)


def create(path: Path, data: bytes | str, mode: int = 0o600) -> bool:
    """Create a file whole, or leave the one that is there; return whether this call created it.

    A link fails where the name is taken, unlike a rename, so that of two processes exactly one creates the file.

    Raises:
        OSError: the folder does not allow new files or hard links.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        write_synced(draft, [data.encode() if isinstance(data, str) else data], mode)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True
    finally:
        draft.unlink(missing_ok=True)


def write_synced(path: Path, pieces: Sequence[bytes | memoryview], mode: int = 0o600) -> None:
    """Write a new file and sync its content, not its name: `move` gives it its place.

    Raises:
        OSError: the name is taken, or the disk is full, read-only or broken; the caller removes what was written.
    """
    _write_new(path, pieces, mode, lasting=True)


def move(source: Path, target: Path) -> None:
    """Rename a synced file or folder within one file system and sync the target's folder; a file there is replaced."""
    source.rename(target)
    sync_folder(target.parent)


def append(path: Path, text: str) -> None:
    """Add `text` to a file and sync it; a power cut may tear the last line, so a reader drops one without a newline."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and make their names survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may open (0700), if it is missing; one that is there keeps its mode.

    So a workspace that a group shares is a folder that somebody made beforehand.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        sync_folder(folder.parent)


def make_shared(folder: Path) -> None:
    """Create a folder for those who may write the one around it: its owner (0700), or its group as well (0770)."""
    if not folder.is_dir():
        make_private(folder)
        folder.chmod(PRIVATE | _group_bits(folder.parent, 0o070))


def create_database(path: Path) -> None:
    """Create the empty file of an SQLite database, if it is missing, readable by its owner only (0600).

    In a folder that its group may write, the group may read and write the database, too (0660). SQLite gives the files
    beside it (`-wal`, `-shm`) the same mode.

    Raises:
        OSError: the folder is missing, or allows no new files.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    if group := _group_bits(path.parent, 0o060):
        path.chmod(0o600 | group)


def _group_bits(folder: Path, bits: int) -> int:
    """Return `bits` where a folder may be written by its group but not by everybody."""
    mode = folder.stat().st_mode
    return bits if mode & stat.S_IWGRP and not mode & stat.S_IWOTH else 0


def sync_folder(folder: Path) -> None:
    """Make a creation, link or rename inside `folder` survive a power cut."""
    _sync(folder)


def sweep(folder: Path, seconds: float = 24 * 3600.0) -> None:
    """Remove what killed writers left in `folder`: temporary files and folders older than `seconds` (a day)."""
    oldest = time.time() - seconds
    for part in folder.iterdir():
        with contextlib.suppress(OSError):
            if part.name.endswith(PART) and part.stat().st_mtime < oldest:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _part_of(path: Path, staging: Path | None) -> Path:
    # The name is unique, as two processes may write the same file at once; the last rename wins.
    return (staging or path.parent) / f".{path.name[:80]}.{uuid.uuid4().hex}{PART}"


def _write_new(path: Path, pieces: Sequence[bytes | memoryview], mode: int | None, lasting: bool) -> None:
    """Write a new file; `mode` holds whatever the umask is, None leaves it to the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_empty(path: Path, mode: int) -> int:
    """Create a file and return the permissions that it has under the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
