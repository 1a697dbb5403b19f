"""Segments of an index: files of at most 65 536 entries, each a number, an address and a vector; never changed.

A segment is a safetensors file whose vectors are mapped rather than read, so an index of millions takes no memory for
what no query touches. Its name is never used twice, and its SHA-256 is checked when an index is opened.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline import durable
from pipeline.errors import ArtefactError
from pipeline.sealed_folder import hash_file

ROWS = 65_536
KINDS = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}
AGAIN = "Delete its folder, which the next nightread generate retrieve writes again from the catalogue."


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of an index: ids int64 [n] that grow, addresses bytes [n], vectors float32 [n, D] (perhaps mapped)."""

    ids: np.ndarray
    addresses: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, addresses: Sequence[str], vectors: np.ndarray) -> Entries:
        """Return entries numbered from 0."""
        names = np.array([one.encode("ascii") for one in addresses], dtype=np.bytes_).reshape(len(addresses))
        return cls(np.arange(len(names)), names, np.ascontiguousarray(vectors, np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    def numbered(self, first_id: int) -> Entries:
        """Return the same entries with ids from `first_id` on."""
        return Entries(np.arange(first_id, first_id + len(self)), self.addresses, self.vectors)

    def rows(self, chosen: np.ndarray | slice) -> Entries:
        """Return some of the entries."""
        return Entries(self.ids[chosen], self.addresses[chosen], self.vectors[chosen])

    @staticmethod
    def join(parts: Sequence[Entries]) -> Entries:
        """Return the entries of several in order."""
        columns = zip(*((part.ids, part.addresses, part.vectors) for part in parts), strict=True)
        return Entries(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest says of a file: its name, its SHA-256, and the number of its entries."""

    file: str
    sha256: str
    count: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"file": self.file, "sha256": self.sha256, "count": self.count}


def write_segment(folder: Path, entries: Entries) -> FileRecord:
    """Write entries into a file of their own."""
    width = max(1, entries.addresses.dtype.itemsize)
    letters = np.frombuffer(entries.addresses.tobytes(), np.uint8).reshape(len(entries), width)
    arrays = {"ids": entries.ids, "addresses": letters, "vectors": np.ascontiguousarray(entries.vectors)}
    return write_arrays(folder, "segment", arrays, len(entries))


def write_arrays(folder: Path, prefix: str, arrays: dict[str, np.ndarray], count: int) -> FileRecord:
    """Write arrays into a new file, and return its record."""
    name = f"{prefix}-{uuid.uuid4().hex}.safetensors"
    with durable.writing(folder / name) as part:
        save_file(arrays, part)
        return FileRecord(name, hash_file(part), count)


def read_segment(folder: Path, record: FileRecord) -> Entries:
    """Return the entries of a segment, its vectors mapped.

    Raises:
        FileNotFoundError: it was replaced since the manifest was read; read that again.
        ArtefactError: a byte was changed.
    """
    path = folder / record.file
    check_file(path, record.sha256)
    arrays = map_arrays(path)
    letters = np.ascontiguousarray(arrays["addresses"])
    names = letters.reshape(-1).view(f"S{letters.shape[1]}") if len(letters) else np.zeros(0, "S1")
    return Entries(np.array(arrays["ids"]), names, arrays["vectors"])


def check_file(path: Path, sha256: str) -> None:
    """Refuse a file of an index that is not the one that its manifest names (ArtefactError)."""
    if hash_file(path) != sha256:
        raise ArtefactError(
            f"{path.name} of the index {path.parent.name} is not what its manifest says: a byte was changed. {AGAIN}"
        )


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file without reading them: a header of JSON, then plain numbers."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    items = {name: item for name, item in header.items() if name != "__metadata__"}
    return {name: _map(path, 8 + size + item["data_offsets"][0], item) for name, item in items.items()}


def _map(path: Path, start: int, item: dict[str, Any]) -> np.ndarray:
    kind, shape = KINDS[item["dtype"]], tuple(item["shape"])
    return np.zeros(shape, kind) if 0 in shape else np.memmap(path, kind, "r", start, shape)


def hash_addresses(addresses: np.ndarray) -> np.ndarray:
    """Return a number for each address, uint64 [n]: equal for equal addresses, whatever the width of their array."""
    width = addresses.dtype.itemsize
    letters = np.zeros((len(addresses), -(-width // 8) * 8), np.uint8)
    letters[:, :width] = np.frombuffer(addresses.tobytes(), np.uint8).reshape(len(addresses), width)
    hashes = np.zeros(len(addresses), np.uint64)
    for word in letters.view(np.uint64).T:
        mixed = (hashes ^ word) * np.uint64(0x9E3779B97F4A7C15)
        hashes = np.where(word == 0, hashes, mixed ^ (mixed >> np.uint64(29)))  # padding changes nothing
    return hashes
