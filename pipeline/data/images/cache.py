"""Normalised series on disk: one safetensors file per series, named by a hash of everything that affects its content.

MONAI's datasets do not fit: CacheDataset transforms items one by one and does not know series, whose statistics an item
needs, and it holds one Python dictionary per item; PersistentDataset and its variants write pickles, which this project
never reads or writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline import durable
from pipeline.data.images.normalise import Normalised, Normaliser
from pipeline.types import SliceRef, Step


def series_key(normaliser: Normaliser, members: Sequence[SliceRef]) -> str:
    """Return the SHA-256 of a normaliser and everything it reads from a series: pixels, attributes, frames, order."""
    digest = hashlib.sha256(normaliser.fingerprint().encode())
    attributes: object = None
    for ref in members:
        digest.update(f"\n{ref.content_id}".encode())
        if ref.attributes is not attributes:  # frames of an instance share one mapping, hashed once
            attributes = ref.attributes
            digest.update(json.dumps(dict(ref.attributes), sort_keys=True).encode())
    return digest.hexdigest()


class SeriesCache:
    """A folder of normalised series, safe for several processes at once; a truncated file counts as missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Return the path of a series, whether it exists or not."""
        return self._folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, items: Sequence[Normalised]) -> None:
        """Store a series whole or not at all."""
        arrays = {
            "image": np.stack([item.image for item in items]),
            "body": np.stack([item.body for item in items]),
        }
        steps = json.dumps([{**item.step.to_json(), "shown": bool(item.body.any())} for item in items])
        durable.write(self.path(key), save(arrays, metadata={"steps": steps}), lasting=False)

    def steps(self, key: str) -> list[tuple[Step, bool]] | None:
        """Return every slice's step and whether it shows a body, or None where the series is not stored."""
        try:
            with safe_open(self.path(key), framework="np") as file:
                steps = json.loads(file.metadata()["steps"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None
        return [(Step(step["name"], step["params"]), step["shown"]) for step in steps]

    def read(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return images float32 [n, 1, S, S] and bodies bool [n, 1, S, S] of a stored series."""
        with safe_open(self.path(key), framework="np") as file:
            return file.get_tensor("image"), file.get_tensor("body")

    def read_slices(self, key: str, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images [n, 1, S, S] and bodies [n, 1, S, S] of neighbouring slices; only their bytes are read."""
        with safe_open(self.path(key), framework="np") as file:
            return file.get_slice("image")[first:last], file.get_slice("body")[first:last]

    def read_slice(self, key: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one image [1, S, S] and body [1, S, S]; only these bytes are read."""
        with safe_open(self.path(key), framework="np") as file:
            return file.get_slice("image")[index], file.get_slice("body")[index]
