"""Take files out of zip, tar and gzip archives; the archive chooses neither where they land nor how big they get."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import psutil

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.source import has_dicom_magic
from pipeline.errors import Rejected, RejectionCode

BOMB_RATIO = 200  # beyond it ...
BOMB_BYTES = 64 * 2**20  # ... and beyond this size, an archive is taken for a bomb
MAX_MEMBERS = 1_000_000
CHUNK = 2**20
Known = Callable[[str, int], bool]
_PREFIX = "nightread-member-"
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


class ExtractedPath(type(Path())):
    """Path of a file taken out of an archive: the file is deleted when the last reference to this object goes."""


@dataclass(frozen=True, slots=True, repr=False)
class Member:
    """One file of an archive.

    Attributes:
        name: its name in the archive, with `#2` and so on where the archive has several of that name; may hold PHI: for
            a pseudonym of the path only.
        path: where it was extracted to, mode 0600, under a name of our own, with the archive's modification time.
            The file lives as long as this path object.
        rejected: why it was not extracted; `path` is then the archive's.
        size: bytes.
        unchanged: it was known, hence not extracted; `path` is then the archive's.
    """

    name: str
    path: Path
    rejected: Rejected | None = None
    size: int = 0
    unchanged: bool = False


def is_archive(path: Path) -> bool:
    """Whether a file begins as zip, tar, gzip, bzip2 or xz; a DICOM file with such a preamble is none."""
    with path.open("rb") as file:
        head = file.read(512)
    return not has_dicom_magic(head) and (head[:4] == b"PK\x03\x04" or _opener(head) is not None or _is_tar(head))


def members(path: Path, limits: DecodeLimits, is_known: Known = lambda name, size: False) -> Iterator[Member]:
    """Extract the files of an archive one after another. Archives inside archives are not opened.

    Args:
        is_known: asked (name, bytes) before a member is extracted; True leaves it in the archive, unchanged. Not asked
            of the file in a gzip, bzip2 or xz without tar: its size is known after the extraction only.

    Raises:
        Rejected: ARCHIVE_UNREADABLE, or ARCHIVE_BOMB for a member beyond `limits.file_bytes` or an archive that swells
            more than 200-fold; what came before has been yielded, the rest is not looked at.
    """
    _sweep()
    try:
        yield from _walk(path, _Sink(path, limits.file_bytes, is_known))
    except Rejected:
        raise
    except _BROKEN as error:
        sentence = f"The archive cannot be read to its end ({type(error).__name__}). Make it again."
        raise Rejected(RejectionCode.ARCHIVE_UNREADABLE, sentence) from None


def _sweep() -> None:
    """Delete what a killed process left behind."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = leftover.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            leftover.unlink(missing_ok=True)


def _walk(path: Path, sink: _Sink) -> Iterator[Member]:
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return _zip_members(path, sink)
    opener = _opener(head)
    if opener is None:
        return _tar_members(path.open("rb"), sink)
    with opener(path, "rb") as inner:
        holds_tar = _is_tar(inner.read(512))
    stream = opener(path, "rb")
    return _tar_members(stream, sink) if holds_tar else _single_member(stream, sink)


class _Sink:
    """Where members are written: names of our own, and a check against bombs on the bytes that really come out."""

    def __init__(self, archive: Path, largest: int, is_known: Known) -> None:
        found = archive.stat()
        self.archive, self._largest, self._size, self._modified = archive, largest, found.st_size, found.st_mtime_ns
        self._count, self._written = 0, 0
        self._names: set[str] = set()
        self._is_known = is_known

    def take(self, name: str, size: int, source: Callable[[], BinaryIO]) -> Member:
        """Copy one member of `size` bytes, unless it is known."""
        name = self._own(name)
        if not self._is_known(name, size):
            return self._extract(name, source())
        self._count += 1
        self._written += size  # a bomb stays a bomb when its first members were taken out the last time
        self._check(size)
        return Member(name, self.archive, size=size, unchanged=True)

    def take_only(self, source: BinaryIO) -> Member:
        """Copy the one file of an archive that knows no names."""
        return self._extract("", source)

    def _own(self, name: str) -> str:
        """Tell members of one name apart: the first keeps it."""
        own, number = name, 1
        while own in self._names:
            number += 1
            own = f"{name}#{number}"
        self._names.add(own)
        return own

    def _extract(self, name: str, source: BinaryIO) -> Member:
        self._count += 1
        handle, target = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-")
        path = ExtractedPath(target)
        weakref.finalize(path, _forget, target)
        with closing(source), os.fdopen(handle, "wb") as out:
            while chunk := source.read(CHUNK):
                self._written += len(chunk)
                self._check(out.tell() + len(chunk))
                out.write(chunk)
        os.utime(path, ns=(self._modified, self._modified))
        return Member(name, path, size=path.stat().st_size)

    def refuse(self, name: str, code: RejectionCode, sentence: str) -> Member:
        """Return a member that stays in the archive."""
        return Member(self._own(name), self.archive, Rejected(code, sentence))

    def _check(self, member_bytes: int) -> None:
        swollen = self._written > BOMB_BYTES and self._written > BOMB_RATIO * self._size
        if swollen or member_bytes > self._largest or self._count > MAX_MEMBERS:
            sentence = (
                f"The archive of {self._size} bytes expands beyond {self._written} bytes: a member is larger than"
            )
            sentence += f" `file_bytes`, or it swells {BOMB_RATIO}-fold. Unpack it by hand if it is real."
            raise Rejected(RejectionCode.ARCHIVE_BOMB, sentence)


def _forget(target: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(target)  # noqa: PTH108, a path object would keep itself alive


def _zip_members(path: Path, sink: _Sink) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if problem := _problem(info.filename, stat.S_ISLNK(info.external_attr >> 16)):
                yield sink.refuse(info.filename, *problem)
            elif info.flag_bits & 1:
                yield sink.refuse(
                    info.filename, RejectionCode.ARCHIVE_UNREADABLE, "The member is encrypted. Decrypt it."
                )
            else:
                yield sink.take(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(stream: BinaryIO, sink: _Sink) -> Iterator[Member]:
    with closing(stream), tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            if info.isdir():
                continue
            if problem := _problem(info.name, info.issym() or info.islnk()):
                yield sink.refuse(info.name, *problem)
            elif not info.isfile():
                sentence = "The member is a device or pipe; only files are read. Leave it out."
                yield sink.refuse(info.name, RejectionCode.NOT_A_FILE, sentence)
            else:
                yield sink.take(info.name, info.size, partial(archive.extractfile, info))


def _single_member(stream: BinaryIO, sink: _Sink) -> Iterator[Member]:
    yield sink.take_only(stream)


def _problem(name: str, is_link: bool) -> tuple[RejectionCode, str] | None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        sentence = "A member's name leads out of the archive (absolute, or with '..'). Do not trust this archive."
        return RejectionCode.ARCHIVE_PATH_TRAVERSAL, sentence
    if is_link:
        return RejectionCode.SYMLINK, "The member is a link; links are never followed. Put the file itself in."
    return None


def _opener(head: bytes) -> object | None:
    return next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"
