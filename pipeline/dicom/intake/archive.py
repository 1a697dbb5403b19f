"""Extract files from zip, tar and compressed archives, which choose neither where files land nor how big they become.

An archive inside an archive is one of its members; `find_files` opens it in turn, under the budget of the outermost.
"""

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
from typing import IO, Any, BinaryIO, Literal, cast

import psutil
from zstandard import ZstdDecompressor, ZstdError

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.source import has_dicom_magic
from pipeline.dicom.intake.expansion_limits import Budget
from pipeline.errors import Rejected, RejectionCode

CHUNK = 2**20
Known = Callable[[str, int], bool]
_PREFIX = "nightread-member-"


def _open_zstd(path: Path, mode: str) -> BinaryIO:
    return cast(BinaryIO, ZstdDecompressor().stream_reader(path.open(mode), read_across_frames=True, closefd=True))


_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
# Archives that are recognised but not read, and what they are.
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x04\x22\x4d\x18": "LZ4",
    b"LZIP": "lzip",
    b"\x1f\x9d": "compress (.Z)",
    b"MSCF": "Cabinet",
    b"xar!": "xar",
}
_DISC_MARK = 16 * 2048 + 1  # ECMA-119 8.1 and ECMA-167 2/9.1: after 16 sectors and a byte
_BROKEN = (
    ZstdError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


class ExtractedPath(type(Path())):  # type: ignore[misc]  # only from Python 3.12 can Path itself be derived from
    """Path of a file extracted from an archive: the file is deleted with the last reference to this object."""


@dataclass(frozen=True, slots=True, repr=False)
class Member:
    """One file of an archive.

    Attributes:
        name: its name in the archive, with `#2` and so on where several members share a name. It may hold PHI, so it
            may only be used to derive a pseudonym of the path.
        path: where it was extracted to, mode 0600, under a name of our own, with the archive's modification time.
            The file lives as long as this path object.
        rejected: why it was not extracted; `path` is then the path of the archive.
        size: bytes.
        unchanged: the caller has seen it before, so it was not extracted; `path` is then the path of the archive.
    """

    name: str
    path: Path
    rejected: Rejected | None = None
    size: int = 0
    unchanged: bool = False


def is_archive(path: Path) -> bool:
    """Whether a file begins like zip, tar, gzip, bzip2, xz or Zstandard."""
    return examine_file(path) is True


def examine_file(path: Path) -> bool | Rejected:
    """Return whether a file is an archive that is read, or why an archive of another format is not.

    A DICOM file whose preamble looks like an archive is not one.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if has_dicom_magic(head):
        return False
    if kind := next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), _hidden_kind(path, head)):
        sentence = f"The file is an archive of the format {kind}, which is not read. Unpack it, and ingest the folder."
        return Rejected(RejectionCode.ARCHIVE_UNREADABLE, sentence)
    if head[:4] == b"PK\x05\x06":
        return Rejected(RejectionCode.ARCHIVE_UNREADABLE, "The archive holds no file. Create it again.")
    return head[:4] == b"PK\x03\x04" or _opener(head) is not None or _is_tar(head)


def _hidden_kind(path: Path, head: bytes) -> str:
    """Return the kind of an archive that does not begin with its mark: an image of a disc, or a program with a zip."""
    if head[:2] == b"MZ" and zipfile.is_zipfile(path):
        return "self-extracting zip"
    with path.open("rb") as file:
        file.seek(_DISC_MARK)
        return "disc image (ISO)" if file.read(5) in (b"CD001", b"BEA01") else ""


def extract_members(
    path: Path,
    limits: DecodeLimits,
    is_known: Known = lambda name, size: False,
    budget: Budget | None = None,
) -> Iterator[Member]:
    """Extract the files of an archive one by one.

    Args:
        path: the archive.
        limits: `file_bytes` limits each member.
        budget: of the outermost archive, where this one is inside another.
        is_known: called with (name, bytes) before a member is extracted; True leaves it in the archive, unchanged. Not
            called for a compressed file without tar: the size of its one file is only known after extraction.

    Raises:
        Rejected: ARCHIVE_UNREADABLE, or ARCHIVE_BOMB for a member larger than `limits.file_bytes` or an archive that
            swells more than 200-fold. Members before that point have been yielded; the rest are not examined.
    """
    _sweep()
    try:
        yield from _walk(path, _Sink(path, budget or Budget(path, limits), is_known))
    except Rejected:
        raise
    except _BROKEN as error:
        sentence = (
            f"The archive cannot be read to its end ({type(error).__name__}). Create it again, or ask for a new copy."
        )
        raise Rejected(RejectionCode.ARCHIVE_UNREADABLE, sentence) from None


def _sweep() -> None:
    """Delete temporary files of processes that were killed before they could delete them."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # The name holds the owner's process id: files of ingests that are still running must not be deleted.
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
    mode: Literal["r:", "r|"] = "r|" if opener is _open_zstd else "r:"  # its reader cannot seek backwards
    return _tar_members(stream, sink, mode) if holds_tar else _single_member(stream, sink)


class _Sink:
    """Write members under names of our own, and count the bytes that are really decompressed."""

    def __init__(self, archive: Path, budget: Budget, is_known: Known) -> None:
        self.archive, self._budget, self._modified = archive, budget, archive.stat().st_mtime_ns
        self._names: set[str] = set()
        self._is_known = is_known

    def take(self, name: str, size: int, source: Callable[[], IO[bytes]]) -> Member:
        """Copy one member of `size` bytes, unless the caller knows it already."""
        name = self._own(name)
        if not self._is_known(name, size):
            return self._extract(name, source())
        self._budget.begin()
        self._budget.spend(size, size)  # skipped members too: a bomb remains one when its first members are known
        return Member(name, self.archive, size=size, unchanged=True)

    def take_only(self, source: BinaryIO) -> Member:
        """Copy the only file of a format that stores no member names."""
        return self._extract("", source)

    def _own(self, name: str) -> str:
        """Return a unique name: the first member with a name keeps it, later ones get a number."""
        own, number = name, 1
        while own in self._names:
            number += 1
            own = f"{name}#{number}"
        self._names.add(own)
        return own

    def _extract(self, name: str, source: IO[bytes]) -> Member:
        self._budget.begin()
        handle, target = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-")
        path = ExtractedPath(target)
        weakref.finalize(path, _forget, target)
        with closing(source), os.fdopen(handle, "wb") as out:
            # The declared size is not trusted: every chunk is counted before it is written.
            while chunk := source.read(CHUNK):
                self._budget.spend(len(chunk), out.tell() + len(chunk))
                out.write(chunk)
        os.utime(path, ns=(self._modified, self._modified))
        return Member(name, path, size=path.stat().st_size)

    def refuse(self, name: str, code: RejectionCode, sentence: str) -> Member:
        """Return a member that stays in the archive."""
        return Member(self._own(name), self.archive, Rejected(code, sentence))


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
                    info.filename,
                    RejectionCode.ARCHIVE_UNREADABLE,
                    "The member is encrypted. Decrypt the archive and ingest it again.",
                )
            else:
                yield sink.take(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(stream: BinaryIO, sink: _Sink, mode: Literal["r:", "r|"] = "r:") -> Iterator[Member]:
    with closing(stream), tarfile.open(fileobj=stream, mode=mode) as archive:
        for info in archive:
            if info.isdir():
                continue
            if problem := _problem(info.name, info.issym() or info.islnk()):
                yield sink.refuse(info.name, *problem)
            elif not info.isfile():
                sentence = "The member is a device or pipe; only regular files are read. No action is needed."
                yield sink.refuse(info.name, RejectionCode.NOT_A_FILE, sentence)
            else:
                yield sink.take(
                    info.name, info.size, cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info))
                )


def _single_member(stream: BinaryIO, sink: _Sink) -> Iterator[Member]:
    yield sink.take_only(stream)


def _problem(name: str, is_link: bool) -> tuple[RejectionCode, str] | None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        sentence = "A member's name leads out of the archive (absolute, or with '..'). Ask for a new one."
        return RejectionCode.ARCHIVE_PATH_TRAVERSAL, sentence
    if is_link:
        return RejectionCode.SYMLINK, "The member is a link; links are never followed. Replace it by the file itself."
    return None


def _opener(head: bytes) -> Callable[..., Any] | None:
    return next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"
