"""Open a file as a DICOM data set, whatever it turns out to be; every refusal has its own code.

Bad input is the normal case here. `guarded` is the one place where an exception that nobody planned becomes a
rejection; `quietly` keeps pydicom's messages, which quote values, away from every log.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread, read_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pipeline.config import DecodeLimits
from pipeline.errors import Rejected, RejectionCode

for _name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_HEADER_ALLOWANCE = 64 * 2**20  # what a deflated header may weigh beyond its pixels
_IN_MEMORY = 64 * 2**20  # below it a file is read at once, which is faster, and clamps as `_Clamped` does
_INFLATE_STEP = 2**24
_WARNINGS_LOCK = threading.RLock()  # warnings.catch_warnings changes the whole process


@contextmanager
def quietly() -> Iterator[list[str]]:
    """Collect warnings instead of showing them; yields the list that receives their texts."""
    texts: list[str] = []
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **more: texts.append(str(message))
        yield texts


@contextmanager
def guarded(fallback: RejectionCode) -> Iterator[None]:
    """Turn every exception of the block into `Rejected`; those that no rule knows get the code `fallback`.

    The texts of foreign exceptions are left out, because they quote values: the type's name is told.
    """
    try:
        yield
    except Rejected:
        raise
    except BaseException as error:
        if is_control_flow(error):
            raise
        raise _as_rejected(error, fallback) from None


def is_control_flow(error: BaseException) -> bool:
    """Whether an exception is meant for Python itself; others outside `Exception` are panics of decoders in Rust."""
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def _as_rejected(error: BaseException, fallback: RejectionCode) -> Rejected:
    if isinstance(error, PermissionError):
        return Rejected(
            RejectionCode.PERMISSION_DENIED, "The file may not be read by this user. Grant read permission."
        )
    if isinstance(error, OSError) and error.errno is not None:  # pydicom raises some of its own, without number
        return Rejected(RejectionCode.UNREADABLE, f"The file cannot be read ({error.strerror}). Check disk and mount.")
    if isinstance(error, RecursionError):
        return Rejected(RejectionCode.NESTED_TOO_DEEP, "Sequences nest deeper than the reader can follow. Exclude it.")
    if isinstance(error, MemoryError):
        return Rejected(RejectionCode.DECODE_MEMORY, "Reading needs more memory than `memory_bytes` allows. Raise it.")
    return Rejected(fallback, f"The file cannot be interpreted ({type(error).__name__}). Export it again.")


def open_dataset(path: Path, limits: DecodeLimits, header_only: bool = False) -> tuple[Dataset, UID, bool]:
    """Parse a file.

    Returns:
        The data set, its transfer syntax, and whether that syntax was deduced for want of file meta information.

    Raises:
        Rejected: with the code of whatever is wrong; no other exception for any content (inside `guarded`).
    """
    _examine(path, limits)
    with open(os.fspath(path), "rb", 0, opener=_open_no_follow) as file, quietly() as texts:  # noqa: PTH123, opener
        before = os.fstat(file.fileno())
        in_memory = before.st_size <= _IN_MEMORY and not header_only
        stream = io.BytesIO(file.read()) if in_memory else _Clamped(file, before.st_size)
        ds, syntax, deduced = _parse(stream, limits, header_only)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _still_writing()
    _refuse_truncation(ds, texts)
    _refuse_depth(ds, limits.sequence_depth)
    return ds, syntax, deduced


class _Clamped(io.BufferedReader):
    """A file that never makes room for more than it holds: an element may say that it is 4 GiB long."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, as every stream does, but allocate for what is left only."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _open_no_follow(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _examine(path: Path, limits: DecodeLimits) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise Rejected(
            RejectionCode.SYMLINK, "The path is a symbolic link; links are never followed. Give the file itself."
        )
    if not stat.S_ISREG(found.st_mode):
        raise Rejected(RejectionCode.NOT_A_FILE, "The path is no regular file (a folder, pipe or device). Exclude it.")
    if time.time() - found.st_mtime < limits.settle_seconds:
        raise _still_writing()
    if found.st_size == 0:
        raise Rejected(RejectionCode.EMPTY_FILE, "The file holds 0 bytes. Send it again.")
    if found.st_size > limits.file_bytes:
        sentence = (
            f"The file holds {found.st_size} bytes, more than `file_bytes` = {limits.file_bytes}. Raise the limit."
        )
        raise Rejected(RejectionCode.FILE_TOO_LARGE, sentence)


def _still_writing() -> Rejected:
    sentence = "The file changed within `settle_seconds` or while it was read. It is tried again at the next ingest."
    return Rejected(RejectionCode.STILL_WRITING, sentence)


def _parse(file: BinaryIO, limits: DecodeLimits, header_only: bool) -> tuple[Dataset, UID, bool]:
    head = file.read(4096)
    file.seek(0)
    if not has_dicom_magic(head) and not _starts_with_element(head):
        raise Rejected(RejectionCode.NOT_DICOM, "The file does not begin as DICOM does (PS3.10 7.1). Exclude it.")
    if DeflatedExplicitVRLittleEndian.encode() in head:
        return _inflate(file, limits), DeflatedExplicitVRLittleEndian, False
    ds = dcmread(file, force=True, stop_before_pixels=header_only)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax:
        return ds, UID(syntax), False
    return ds, _deduce(ds), True


def has_dicom_magic(head: bytes) -> bool:
    """Whether the first 132 bytes are a preamble and the DICM prefix (PS3.10 7.1)."""
    return head[128:132] == b"DICM"


def _starts_with_element(head: bytes) -> bool:
    """Whether the bytes begin with an element of group 2 or 8, as DICOM without preamble does."""
    return any(
        int.from_bytes(head[:2], order) in (2, 8) and int.from_bytes(head[2:4], order) <= 0x0100 and len(head) >= 16
        for order in ("little", "big")
    )


def _deduce(ds: Dataset) -> UID:
    """Return the native syntax that the elements were written in; the file names none."""
    implicit, little = ds.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    ds.file_meta.TransferSyntaxUID = syntax
    return syntax


def _inflate(file: BinaryIO, limits: DecodeLimits) -> Dataset:
    """Read a deflated data set (PS3.5 A.5) without inflating more than the limits allow; pydicom would."""
    data = file.read()
    if data[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Rejected(RejectionCode.CORRUPT_HEADER, "The file meta group has no length (PS3.10 7.1). Export it again.")
    start = 144 + int.from_bytes(data[140:144], "little")
    budget = limits.decoded_bytes + _HEADER_ALLOWANCE
    inflater, plain, rest = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO(), data[start:]
    while rest and not inflater.eof:
        try:
            plain.write(inflater.decompress(rest, _INFLATE_STEP))
        except zlib.error:
            sentence = "The deflated data set is no deflate stream, or damaged (PS3.5 A.5). Send it again."
            raise Rejected(RejectionCode.CORRUPT_HEADER, sentence) from None
        rest = inflater.unconsumed_tail
        if plain.tell() > budget:
            sentence = f"The deflated data set inflates beyond {budget} bytes, `decoded_bytes` included. Exclude."
            raise Rejected(RejectionCode.DECOMPRESSION_BOMB, sentence)
    if not inflater.eof:
        sentence = "The deflated data set ends before its end marker. Send it again."
        raise Rejected(RejectionCode.TRUNCATED_PIXELS, sentence)
    plain.seek(0)
    ds = read_dataset(plain, is_implicit_VR=False, is_little_endian=True)
    ds.file_meta = FileMetaDataset(read_dataset(io.BytesIO(data[132:start]), False, True))
    return ds


def _refuse_truncation(ds: Dataset, texts: list[str]) -> None:
    """pydicom warns of an early end and hands out what it has: that is no whole data set."""
    if not any("nd of file" in message for message in texts):
        return
    in_encapsulated = any("before delimiter" in message for message in texts)
    if in_encapsulated or ("Rows" in ds and not any(tag in ds for tag in _PIXEL_TAGS)):
        raise Rejected(RejectionCode.TRUNCATED_PIXELS, "The file ends inside its pixel data. Send it again.")
    raise Rejected(RejectionCode.CORRUPT_HEADER, "The file ends inside an element. Send it again.")


def _refuse_depth(ds: Dataset, limit: int) -> None:
    """Walk the sequences that are parsed already; the others are bytes that nobody has nested yet."""
    level, depth = [ds], 0
    while level:
        if depth > limit:
            sentence = f"Sequences nest deeper than `sequence_depth` = {limit}. Exclude the file, or raise the limit."
            raise Rejected(RejectionCode.NESTED_TOO_DEEP, sentence)
        elements = (element for item in level for element in item.values())  # values() does not parse raw elements
        level = [inner for element in elements if isinstance(element.value, DicomSequence) for inner in element.value]
        depth += 1
