"""Open a file as a DICOM data set, whatever its content; every refusal has its own code.

Bad input is the normal case here. `guard` is the only place where an unexpected exception becomes a rejection;
`quietly` keeps pydicom's messages, which quote values, out of every log.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

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

from pipeline.dicom.decode.fragments import closed
from pipeline.dicom.decode.settled import is_changing
from pipeline.dicom.decode.vendors import Assumed
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits

for _name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
# Their warnings quote malformed values, identifiers among them, wherever an element is read or written.
warnings.filterwarnings("ignore", module=r"(pydicom|pynetdicom|highdicom|dicomweb_client|pylibjpeg)(\.|$)")

_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_HEADER_ALLOWANCE = 64 * 2**20  # bytes that a deflated header may take in addition to its pixels
_IN_MEMORY = 64 * 2**20  # smaller files are read at once: faster, and as bounded as `_Clamped`
_HEADER_IN_MEMORY = 2**20  # the same where the pixels are read in vain
_INFLATE_STEP = 2**24
_WARNINGS_LOCK = threading.RLock()  # warnings.catch_warnings changes the state of the whole process


@contextmanager
def quietly() -> Iterator[list[str]]:
    """Collect warnings instead of showing them; yields the list that receives their texts."""
    texts: list[str] = []
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **more: texts.append(str(message))
        yield texts


@contextmanager
def guard(fallback: RejectionCode) -> Iterator[None]:
    """Turn every exception of the block into `Rejected`; unexpected ones get the code `fallback`.

    The messages of foreign exceptions are dropped, because they quote values; only the type's name is reported.
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
    """Whether an exception is meant for Python itself. Others outside `Exception` are panics of decoders in Rust."""
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def _as_rejected(error: BaseException, fallback: RejectionCode) -> Rejected:
    if isinstance(error, PermissionError):
        return Rejected(
            RejectionCode.PERMISSION_DENIED, "This user may not read the file. Grant read permission and ingest again."
        )
    if isinstance(error, OSError) and error.errno is not None:  # pydicom raises OSErrors of its own, without errno
        return Rejected(
            RejectionCode.UNREADABLE,
            f"The file cannot be read ({error.strerror}). Check the disk and the mount, then ingest again.",
        )
    if isinstance(error, RecursionError):
        sentence = (
            "Sequences are nested deeper than the reader can follow. The file is damaged or hostile; export it without."
        )
        return Rejected(RejectionCode.NESTED_TOO_DEEP, sentence)
    if isinstance(error, MemoryError):
        sentence = "Reading needs more memory than `decode.memory_bytes` allows. Raise that value in settings.yaml."
        return Rejected(RejectionCode.DECODE_MEMORY, sentence)
    if isinstance(error, OSError | EOFError):  # pydicom's, where no element begins at a place where one must
        sentence = "The file breaks off, or a length in it is wrong: an element is missing where one should begin. "
        return Rejected(fallback, sentence + "Copy the whole file from its source, or export the image again.")
    named = _TAG.search(str(error))
    where = f"The element {named[0].lower()} of the file" if named else "The file"
    return Rejected(fallback, f"{where} cannot be interpreted ({type(error).__name__}). Export the image again.")


_TAG = re.compile(r"\([0-9A-Fa-f]{4}, ?[0-9A-Fa-f]{4}\)")


class Opened(NamedTuple):
    """A parsed file: its transfer syntax, whether that was deduced for want of file meta information, and `Assumed`."""

    ds: Dataset
    syntax: UID
    deduced: bool
    assumed: tuple[str, ...] = ()


def open_dataset(path: Path, limits: DecodeLimits, header_only: bool = False) -> Opened:
    """Parse a file.

    Raises:
        Rejected: with the code of the fault; inside `guard` no content raises any other exception.
    """
    _examine(path, limits)
    with open(os.fspath(path), "rb", 0, opener=_open_no_follow) as file, quietly() as texts:  # noqa: PTH123, opener
        before = os.fstat(file.fileno())
        in_memory = before.st_size <= (_HEADER_IN_MEMORY if header_only else _IN_MEMORY)
        stream = io.BytesIO(file.read()) if in_memory else _Clamped(file, before.st_size)
        opened = _parse_closed(stream, texts, limits, header_only)
        after = os.fstat(file.fileno())
    # A sender that is still writing changes size or time while we read: half a file must not pass as a whole one.
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _still_writing()
    _refuse_truncation(opened.ds, texts)
    _refuse_depth(opened.ds, limits.sequence_depth)
    return opened


class _Clamped(io.BufferedReader):
    """Reader that never allocates more than the file holds, since an element may declare a length of 4 GiB."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, allocating only for the bytes that are left."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _open_no_follow(name: str, flags: int) -> int:
    # O_NOFOLLOW and O_NONBLOCK close the race after `_examine`: the path may have become a link or a pipe meanwhile.
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _examine(path: Path, limits: DecodeLimits) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise Rejected(
            RejectionCode.SYMLINK,
            "The path is a symbolic link; links are never followed. Pass the path of the file itself.",
        )
    if not stat.S_ISREG(status.st_mode):
        sentence = "The path is not a regular file but a folder, pipe or device. Pass the path of a file."
        raise Rejected(RejectionCode.NOT_A_FILE, sentence)
    if is_changing(path, status, limits.settle_seconds):
        raise _still_writing()
    if status.st_size == 0:
        raise Rejected(RejectionCode.EMPTY_FILE, "The file is empty (0 bytes). Copy the whole file from its source.")
    if status.st_size > limits.file_bytes:
        sentence = (
            f"The file holds {status.st_size} bytes, more than `decode.file_bytes` = {limits.file_bytes}. If it is "
            "genuine, raise that value in settings.yaml."
        )
        raise Rejected(RejectionCode.FILE_TOO_LARGE, sentence)


def _still_writing() -> Rejected:
    sentence = "The file changed within `settle_seconds` or while it was read. The next ingest tries again."
    return Rejected(RejectionCode.STILL_WRITING, sentence)


def _parse_closed(file: BinaryIO, texts: list[str], limits: DecodeLimits, header_only: bool) -> Opened:
    """Parse; pixel data that lack only their final delimiter are parsed again with it."""
    opened = _parse(file, limits, header_only)
    if not any("before delimiter" in text for text in texts) or any(tag in opened.ds for tag in _PIXEL_TAGS):
        return opened
    file.seek(0)
    content = closed(file.read())
    if content is None:
        return opened
    texts.clear()
    return _parse(io.BytesIO(content), limits, header_only)._replace(assumed=(Assumed.FINAL_DELIMITER,))


def _parse(file: BinaryIO, limits: DecodeLimits, header_only: bool) -> Opened:
    head = file.read(4096)
    file.seek(0)
    if not has_dicom_magic(head) and not _starts_with_element(head):
        sentence = "The file does not begin like a DICOM file (PS3.10 7.1). If it should be one, export it again."
        raise Rejected(RejectionCode.NOT_DICOM, sentence)
    if DeflatedExplicitVRLittleEndian.encode() in head:
        return Opened(_inflate(file, limits), DeflatedExplicitVRLittleEndian, False)
    ds = dcmread(file, force=True, stop_before_pixels=header_only)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax:
        return Opened(ds, UID(syntax), False)
    return Opened(ds, _deduce(ds), True)


def has_dicom_magic(head: bytes) -> bool:
    """Whether the first 132 bytes are a preamble and the DICM prefix (PS3.10 7.1)."""
    return head[128:132] == b"DICM"


def _starts_with_element(head: bytes) -> bool:
    """Whether the bytes begin with an element of group 2 or 8, as a DICOM file without preamble does."""
    return any(
        int.from_bytes(head[:2], order) in (2, 8) and int.from_bytes(head[2:4], order) <= 0x0100 and len(head) >= 16
        for order in ("little", "big")
    )


def _deduce(ds: Dataset) -> UID:
    """Return the native syntax in which the elements are written, for a file that names none."""
    implicit, little = ds.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    ds.file_meta.TransferSyntaxUID = syntax
    return syntax


def _inflate(file: BinaryIO, limits: DecodeLimits) -> Dataset:
    """Read a deflated data set (PS3.5 A.5) but never inflate more than the limits allow, as pydicom would."""
    data = file.read()
    if data[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            "The file meta group has no length element (PS3.10 7.1). Export the image again.",
        )
    start = 144 + int.from_bytes(data[140:144], "little")
    budget = limits.decoded_bytes + _HEADER_ALLOWANCE
    inflater, plain, rest = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO(), data[start:]
    while rest and not inflater.eof:
        try:
            plain.write(inflater.decompress(rest, _INFLATE_STEP))
        except zlib.error:
            sentence = "The deflated data set is damaged or not a deflate stream (PS3.5 A.5). Export the image again."
            raise Rejected(RejectionCode.CORRUPT_HEADER, sentence) from None
        rest = inflater.unconsumed_tail
        if plain.tell() > budget:
            sentence = (
                f"The deflated data set inflates to more than {budget} bytes, which `decode.decoded_bytes` allows. "
            )
            sentence += "If the image is genuine, raise that value in settings.yaml."
            raise Rejected(RejectionCode.DECOMPRESSION_BOMB, sentence)
    if not inflater.eof:
        sentence = "The deflated data set ends before its end marker. Copy the whole file from its source."
        raise Rejected(RejectionCode.TRUNCATED_PIXELS, sentence)
    plain.seek(0)
    ds = read_dataset(plain, is_implicit_VR=False, is_little_endian=True)
    ds.file_meta = FileMetaDataset(read_dataset(io.BytesIO(data[132:start]), False, True))
    return ds


def _refuse_truncation(ds: Dataset, texts: list[str]) -> None:
    """Reject a file that ends early: pydicom only warns about it and returns the elements read so far."""
    if not any("nd of file" in message for message in texts):
        return
    in_encapsulated = any("before delimiter" in message for message in texts)
    if in_encapsulated or ("Rows" in ds and not any(tag in ds for tag in _PIXEL_TAGS)):
        raise Rejected(
            RejectionCode.TRUNCATED_PIXELS, "The file ends inside its pixel data. Copy the whole file from its source."
        )
    raise Rejected(
        RejectionCode.CORRUPT_HEADER, "The file ends inside an element. Copy the whole file from its source."
    )


def _refuse_depth(ds: Dataset, limit: int) -> None:
    """Refuse sequences nested too deep; only parsed ones are counted, the others are still unparsed bytes."""
    level, depth = [ds], 0
    while level:
        if depth > limit:
            sentence = f"Sequences are nested deeper than `decode.sequence_depth` = {limit}. If the file is genuine, "
            sentence += "raise that value in settings.yaml."
            raise Rejected(RejectionCode.NESTED_TOO_DEEP, sentence)
        elements = (element for item in level for element in item.values())  # values() does not parse raw elements
        level = [inner for element in elements if isinstance(element.value, DicomSequence) for inner in element.value]
        depth += 1
