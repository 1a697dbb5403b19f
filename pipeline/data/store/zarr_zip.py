"""The bytes of one pixel object: a Zarr 3 array in an uncompressed zip, made without Zarr and without `zipfile`.

Zarr takes 2 ms to write a slice and half a second to be imported, `zipfile` takes longer than hashing the pixels. The
bytes are those that both would write.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numcodecs import Blosc

from pipeline.errors import CatalogueError

_LEVEL = 1
_LARGEST, _MOST = 2**31 - 1, 2**16 - 1  # bytes and members of a zip without Zip64, as `zipfile` draws the line
_DATE = (1980, 1, 1, 0, 0, 0)  # of every member: a fixed one gives equal content equal bytes
_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_VERSION, _UNIX, _DAY, _PERMISSIONS = 20, 3 << 8, 1 << 5 | 1, 0o600 << 16


def pack(array: np.ndarray) -> bytes:
    """Return the object of a little-endian array [F, H, W] in C order, one chunk per frame.

    Raises:
        CatalogueError: a frame is too large for a chunk.
    """
    blosc = Blosc(cname="zstd", clevel=_LEVEL, shuffle=Blosc.BITSHUFFLE)
    members = [("zarr.json", describe(array.dtype.name, array.shape))]
    members += [(f"c/{index}/0/0", _compress(blosc, frame)) for index, frame in enumerate(array)]
    small = len(members) <= _MOST and sum(len(data) + 200 for _, data in members) < _LARGEST
    return _zip(members) if small else _zip64(members)


def _compress(blosc: Blosc, frame: np.ndarray) -> bytes:
    # Blosc counts bytes in a C int. Booleans are written as bytes, like Zarr does.
    if frame.nbytes >= 2**31 - 16:
        raise CatalogueError(
            f"One frame of {frame.nbytes} bytes is more than the 2 GiB that a chunk may hold. Reject the file."
        )
    return blosc.encode(frame.view(np.uint8) if frame.dtype == bool else frame)


@lru_cache(maxsize=256)
def describe(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the `zarr.json` that Zarr itself writes for this type and shape."""
    kind = np.dtype(dtype)
    endian: dict[str, Any] = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
    blosc = {"typesize": kind.itemsize, "cname": "zstd", "clevel": _LEVEL, "shuffle": "bitshuffle", "blocksize": 0}
    metadata = {
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": (1, *shape[1:])}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": kind.type(0).item(),
        "codecs": [{"name": "bytes", **endian}, {"name": "blosc", "configuration": blosc}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(metadata, indent=2).encode()


def _zip(members: Iterable[tuple[str, bytes]]) -> bytes:
    pieces: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, data in members:
        encoded, size = name.encode("ascii"), len(data)
        facts = (0, 0, 0, _DAY, zlib.crc32(data), size, size, len(encoded), 0)  # no flags, stored, midnight
        header = _LOCAL.pack(b"PK\x03\x04", _VERSION, *facts)
        entry = _CENTRAL.pack(b"PK\x01\x02", _VERSION | _UNIX, _VERSION, *facts, 0, 0, 0, _PERMISSIONS, offset)
        pieces += (header, encoded, data)
        directory += (entry, encoded)
        offset += len(header) + len(encoded) + size
    count, length = len(directory) // 2, sum(map(len, directory))
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, length, offset, 0)
    return b"".join((*pieces, *directory, end))


def _zip64(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Let `zipfile` write what needs the Zip64 extension."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    return buffer.getvalue()
