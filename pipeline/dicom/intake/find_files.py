"""Find the files below the given paths, in a fixed order; links are never followed and nothing is skipped silently."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.settled import is_changing
from pipeline.dicom.intake.archive import Member, examine_file, extract_members, is_archive
from pipeline.dicom.intake.expansion_limits import Budget
from pipeline.errors import Rejected, RejectionCode

DEEPEST = 5  # archives inside each other: an export in a mail in a backup


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """One file to read, or the reason why it is not read. Paths may hold PHI.

    Attributes:
        path: the file to read; for a member of an archive a temporary file that lives as long as this path object.
        size, mtime_ns: bytes and modification time, by which a later ingest recognises an unchanged file.
        name: stable name across runs: `path`, or `<archive>/<member>` for a member of an archive.
        rejected: set where the path must not be read: links, devices, unreadable or missing paths, archive bombs.
        unchanged: a member that is known already and was not extracted; `path` is then the path of the archive.
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
    """Walk files, folders and archives depth-first in name order; a folder reached twice is walked only once.

    A path given by the caller may be a link to a folder, because the caller meant it; every link below it becomes a
    rejected candidate. Of each file only the first bytes are read, to recognise archives.

    Args:
        is_known: called for an archive's member before it is extracted; True skips the extraction and yields it as
            unchanged.
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
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                waiting += _children(path, status, seen)
            else:
                yield from _candidates(path, status, limits, is_known)
        except OSError as error:
            yield Candidate(path, 0, 0, path, _refusal(error))


def _children(path: Path, status: os.stat_result, seen: set[tuple[int, int]]) -> list[Path]:
    key = (status.st_dev, status.st_ino)  # a bind mount or a second path reaches the same inode
    if key in seen:
        return []
    seen.add(key)
    with os.scandir(path) as entries:
        return sorted(
            (Path(entry.path) for entry in entries), reverse=True
        )  # reversed, because the walk pops from the end


def _candidates(path: Path, status: os.stat_result, limits: DecodeLimits, is_known: Known) -> Iterator[Candidate]:
    rejected = _not_to_be_opened(status)
    kind = examine_file(path) if rejected is None else False
    rejected = kind if isinstance(kind, Rejected) else rejected
    if kind is True and not is_changing(path, status, limits.settle_seconds):
        yield from _members(path, status, limits, is_known)
    else:
        yield Candidate(path, status.st_size, status.st_mtime_ns, path, rejected)


def _not_to_be_opened(status: os.stat_result) -> Rejected | None:
    if stat.S_ISLNK(status.st_mode):
        sentence = "The path is a symbolic link; links are never followed. Pass the path of the file itself."
        return Rejected(RejectionCode.SYMLINK, sentence)
    if not stat.S_ISREG(status.st_mode):
        sentence = (
            "The path is not a regular file but a pipe, socket or device, which is never read. No action is needed."
        )
        return Rejected(RejectionCode.NOT_A_FILE, sentence)
    if status.st_size == 0:
        return Rejected(RejectionCode.EMPTY_FILE, "The file is empty (0 bytes). Copy the whole file from its source.")
    return None


def _members(path: Path, status: os.stat_result, limits: DecodeLimits, is_known: Known) -> Iterator[Candidate]:
    def candidate(name: str, size: int, file: Path = path, rejected: Rejected | None = None) -> Candidate:
        return Candidate(file, size, status.st_mtime_ns, path / name.lstrip("/"), rejected)

    def walk(archive: Path, inside: str, depth: int) -> Iterator[Candidate]:
        """Yield the members of an archive, and in place of archives among them their members."""
        seen_before = lambda name, size: is_known(candidate(f"{inside}{name}", size))  # noqa: E731
        for one in extract_members(archive, limits, seen_before, budget):
            name, refused = f"{inside}{one.name}", one.rejected or _refuse_inner(one, depth)
            if refused is None and not one.unchanged and is_archive(one.path):
                try:
                    yield from walk(one.path, f"{name}/", depth + 1)
                except Rejected as rejected:
                    if rejected.code is RejectionCode.ARCHIVE_BOMB:
                        raise
                    yield candidate(name, one.size, one.path, rejected)
            else:
                yield replace(candidate(name, one.size, one.path, refused), unchanged=one.unchanged)

    try:
        budget = Budget(path, limits)
        yield from walk(path, "", 1)
    except Rejected as rejected:
        yield Candidate(path, status.st_size, status.st_mtime_ns, path, rejected)


def _refuse_inner(one: Member, depth: int) -> Rejected | None:
    """Return why an extracted member is not read: an archive of a foreign format, or nested too deep."""
    if one.unchanged:
        return None
    kind = examine_file(one.path)
    if kind is True and depth >= DEEPEST:
        sentence = f"Archives are nested deeper than {DEEPEST}. Unpack them, and ingest the folder."
        return Rejected(RejectionCode.NESTED_TOO_DEEP, sentence)
    return kind if isinstance(kind, Rejected) else None


def _refusal(error: OSError) -> Rejected:
    if isinstance(error, PermissionError):
        return Rejected(
            RejectionCode.PERMISSION_DENIED, "This user may not read the path. Grant read permission and ingest again."
        )
    return Rejected(RejectionCode.UNREADABLE, f"The path cannot be read ({error.strerror}). Check that it exists.")
