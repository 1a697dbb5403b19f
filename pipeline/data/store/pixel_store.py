"""Pixel store: the stored values of every instance and mask, each one Zarr 3 array in one zip object.

Reasons for Zarr 3 in a zip: the format is open and many tools read it; a chunk is one frame, so a single frame of a
large multi-frame object can be read (on object storage with two range requests); an instance is one file or object, so
a write is atomic, a listing is short, and ten thousand slices are not a hundred thousand files. The name of an object
is the SHA-256 of its content: writing twice equals writing once, an object never changes, and an object that no
catalogue row names (after a killed ingest) is harmless and reused when its file returns.

Layout: `<first two of the key>/<key>.zarr.zip`; uncompressed zip members `zarr.json` and `c/<frame>/0/0`, each chunk
little-endian and compressed by Blosc (bit shuffle, zstd level 1: the smallest on real CT, MR and 8-bit images; level 3
takes twice as long and saves 1 %). Zarr's own reader opens these files, but Zarr is not used here to write
(`zarr_zip`) and read them, because it takes 2 ms per slice, five times as long as the compression itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numcodecs import Blosc

from pipeline.data.store.object_storage import LocalObjects, ObjectStorage, open_objects
from pipeline.data.store.zarr_zip import pack
from pipeline.errors import CatalogueError

_DTYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"}
_KEY = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".zarr.zip"


class PixelStore:
    """Content-addressed arrays [F, H, W] of integers, floats or booleans, in a folder or at an fsspec URL.

    Args:
        url: a folder, or an fsspec URL such as `s3://bucket/pixels` (its driver must be installed).
    """

    def __init__(self, url: str | Path) -> None:
        self._objects: ObjectStorage = open_objects(str(url))

    @property
    def is_local(self) -> bool:
        """Whether the objects are files in a folder."""
        return isinstance(self._objects, LocalObjects)

    def put(self, stored: np.ndarray) -> str:
        """Write an array [F, H, W] and return its key; an equal array that exists already is not written again.

        The object appears whole or not at all (temporary file, fsync, rename, fsync of the folder). A damaged object
        with the same key is replaced.

        Raises:
            CatalogueError: the array cannot be stored, or the storage is full, read-only or unreachable.
        """
        array = _canonical(stored)
        key = _key_of(array)
        if not (self.exists(key) and self._is_sound(key)):
            self._objects.write(_name(key), pack(array))
        return key

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        """Read the array [F, H, W], or the single frame [H, W].

        Raises:
            CatalogueError: the object or frame does not exist, or is damaged (every part has a checksum).
        """
        with self._opened(key) as file:
            try:
                return _unpack(file, frame)
            except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, OSError, EOFError) as error:
                raise CatalogueError(_damaged(key, type(error).__name__)) from None

    def exists(self, key: str) -> bool:
        """Return whether an object with this key exists; its content is not checked.

        Raises:
            CatalogueError: the storage does not answer.
        """
        try:
            return self._objects.exists(_name(key))
        except OSError as error:
            raise CatalogueError(
                f"The pixel store does not answer: {error.strerror}. Check store_url, its credentials and the network."
            ) from None

    def size_bytes(self, key: str) -> int:
        """Return the size of an object; 0 where it is missing."""
        return self._objects.size(_name(key))

    def delete(self, key: str) -> bool:
        """Delete an object, and return whether it was there: only for the erasure of a patient and for retention.

        Raises:
            CatalogueError: the storage does not allow it.
        """
        try:
            return self._objects.delete(_name(key))
        except OSError as error:
            raise CatalogueError(
                f"The pixel object {key[:12]}… cannot be deleted: {error.strerror}. Make the store writable."
            ) from None

    def keys(self) -> Iterator[str]:
        """Yield the keys of all objects, in no particular order."""
        for name in self._objects.list_names(_SUFFIX):
            yield name.rpartition("/")[2].removesuffix(_SUFFIX)

    def verify(self, key: str) -> None:
        """Check that the content of an object matches its key.

        Raises:
            CatalogueError: it is missing, damaged, or its content belongs to another key.
        """
        actual = content_key(self.get(key))
        if actual != key:
            raise CatalogueError(_damaged(key, f"its content has the key {actual[:12]}"))

    def _is_sound(self, key: str) -> bool:
        try:
            self.verify(key)
        except CatalogueError:
            return False
        return True

    def _opened(self, key: str) -> IO[bytes]:
        try:
            return self._objects.open(_name(key))
        except FileNotFoundError:
            raise CatalogueError(
                f"The pixel object {key[:12]}… of the catalogue is missing from the store. Restore the store, or "
                "ingest the files again."
            ) from None
        except OSError as error:
            raise CatalogueError(
                f"The pixel object {key[:12]}… cannot be opened: {error.strerror}. Check the storage."
            ) from None


def content_key(stored: np.ndarray) -> str:
    """Return the key of an array: SHA-256 of its element type, shape and values (little-endian, C order)."""
    return _key_of(_canonical(stored))


def _key_of(array: Any) -> str:  # numpy declares itself a buffer from Python 3.12 only
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()


def _canonical(stored: np.ndarray) -> np.ndarray:
    array = np.asarray(stored)
    if array.ndim != 3 or array.dtype.name not in _DTYPES or 0 in array.shape:
        raise CatalogueError(
            f"The pixel store accepts arrays [frames, rows, columns] of numbers, but this is {array.dtype} "
            f"{list(array.shape)}. Pass the decoded stored values."
        )
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _name(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise CatalogueError(f"{key!r:.80} is not a key of the pixel store: it must be 64 hexadecimal digits.")
    return f"{key[:2]}/{key}{_SUFFIX}"


def _damaged(key: str, detail: str) -> str:
    return f"The pixel object {key[:12]}… is damaged ({detail}). Ingest its file again to replace it."


def _unpack(file: IO[bytes], frame: int | None) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        metadata = json.loads(archive.read("zarr.json"))
        shape, dtype = tuple(metadata["shape"]), np.dtype(metadata["data_type"])
        if frame is not None and not 0 <= frame < shape[0]:
            raise CatalogueError(
                f"Frame {frame} was requested from a pixel object with {shape[0]} frames; count from 0."
            )
        if frame is not None:
            return _chunk(archive, frame, shape, dtype)
        whole = np.empty(shape, dtype)
        for index in range(shape[0]):
            whole[index] = _chunk(archive, index, shape, dtype)
        return whole


def _chunk(archive: zipfile.ZipFile, index: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    out = np.empty(shape[1:], dtype)
    Blosc().decode(archive.read(f"c/{index}/0/0"), out)
    return out
