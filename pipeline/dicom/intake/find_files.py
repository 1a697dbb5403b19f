"""Find the files below the given paths, in a fixed order; links are never followed, nothing is skipped in silence."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import DecodeLimits
from pipeline.dicom.intake.archive import is_archive, members
from pipeline.errors import Rejected, RejectionCode


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """One file to look at, or the reason not to. Paths may hold PHI.

    Attributes:
        path: the file to read; for a member of an archive a temporary one, which lives as long as this path object.
        size, mtime_ns: bytes and modification time; they tell whether a file was seen before.
        name: what it is known by from run to run: `path`, or `<archive>/<member>` for a member of an archive.
        rejected: set for what is not to be read: links, devices, what may not be read, what is not there, bombs.
        unchanged: a known member of an archive, which was not extracted; `path` is the archive's then.
    """

    path: Path
    size: int
    mtime_ns: int
    name: Path
    rejected: Rejected | None = None
    unchanged: bool = False


Known = Callable[[Candidate], bool]


def discover(
    paths: Iterable[Path], limits: DecodeLimits, is_known: Known = lambda candidate: False
) -> Iterator[Candidate]:
    """Walk files, folders and archives depth-first in name order; a folder reached twice is walked once.

    A folder that is itself named may be a link (the caller meant it); every link below it is a rejected candidate.
    Files are not opened but for their first bytes, which tell archives.

    Args:
        is_known: asked of an archive's member before it is extracted; True saves that, and yields it as unchanged.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        root = Path(path)
        yield from _walk(root.resolve() if root.is_dir() else root, limits, seen, is_known)


def _walk(root: Path, limits: DecodeLimits, seen: set[tuple[int, int]], is_known: Known) -> Iterator[Candidate]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                waiting += _children(path, found, seen)
            else:
                yield from _candidates(path, found, limits, is_known)
        except OSError as error:
            yield Candidate(path, 0, 0, path, _refusal(error))


def _children(path: Path, found: os.stat_result, seen: set[tuple[int, int]]) -> list[Path]:
    key = (found.st_dev, found.st_ino)
    if key in seen:
        return []
    seen.add(key)
    with os.scandir(path) as entries:
        return sorted((Path(entry.path) for entry in entries), reverse=True)  # the last is popped first


def _candidates(path: Path, found: os.stat_result, limits: DecodeLimits, is_known: Known) -> Iterator[Candidate]:
    rejected = _not_to_be_opened(found)
    if rejected is None and is_archive(path) and time.time() - found.st_mtime >= limits.settle_seconds:
        yield from _members(path, found, limits, is_known)
    else:
        yield Candidate(path, found.st_size, found.st_mtime_ns, path, rejected)


def _not_to_be_opened(found: os.stat_result) -> Rejected | None:
    if stat.S_ISLNK(found.st_mode):
        sentence = "The path is a symbolic link; links are never followed. Give the file itself."
        return Rejected(RejectionCode.SYMLINK, sentence)
    if not stat.S_ISREG(found.st_mode):
        sentence = "The path is no regular file (a pipe, socket or device). Exclude it."
        return Rejected(RejectionCode.NOT_A_FILE, sentence)
    if found.st_size == 0:
        return Rejected(RejectionCode.EMPTY_FILE, "The file holds 0 bytes. Send it again.")
    return None


def _members(path: Path, found: os.stat_result, limits: DecodeLimits, is_known: Known) -> Iterator[Candidate]:
    def candidate(name: str, size: int, file: Path = path, rejected: Rejected | None = None) -> Candidate:
        return Candidate(file, size, found.st_mtime_ns, path / name.lstrip("/"), rejected)

    try:
        for one in members(path, limits, lambda name, size: is_known(candidate(name, size))):
            yield replace(candidate(one.name, one.size, one.path, one.rejected), unchanged=one.unchanged)
    except Rejected as rejected:
        yield Candidate(path, found.st_size, found.st_mtime_ns, path, rejected)


def _refusal(error: OSError) -> Rejected:
    if isinstance(error, PermissionError):
        return Rejected(
            RejectionCode.PERMISSION_DENIED, "The path may not be read by this user. Grant read permission."
        )
    return Rejected(RejectionCode.UNREADABLE, f"The path cannot be read ({error.strerror}). Check that it exists.")
