"""Normalised series on disk: one safetensors file a series, named by everything that decides its content.

MONAI's datasets were tried and do not serve: CacheDataset transforms items one by one and knows no series, whose
statistics an item needs; it holds a Python dictionary an item; PersistentDataset and its kin write pickles, which this
project never reads or writes.
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
    """Return the SHA-256 of a normaliser and of all that it reads of a series: pixels, attributes, frames, order."""
    digest = hashlib.sha256(normaliser.fingerprint().encode())
    attributes: object = None
    for ref in members:
        digest.update(f"\n{ref.content_id}".encode())
        if ref.attributes is not attributes:  # the frames of an instance share one mapping
            attributes = ref.attributes
            digest.update(json.dumps(dict(ref.attributes), sort_keys=True).encode())
    return digest.hexdigest()


class SeriesCache:
    """A folder of normalised series, for several processes at once; a truncated file counts as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Return where a series lies, or would."""
        return self._folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, items: Sequence[Normalised]) -> None:
        """Store a series; it appears whole or not at all."""
        arrays = {
            "image": np.stack([item.image for item in items]),
            "body": np.stack([item.body for item in items]),
        }
        steps = json.dumps([{**item.step.to_json(), "shown": bool(item.body.any())} for item in items])
        durable.write(self.path(key), save(arrays, metadata={"steps": steps}), lasting=False)

    def steps(self, key: str) -> list[tuple[Step, bool]] | None:
        """Return every slice's step and whether it shows a body, or None where the series is not there."""
        try:
            with safe_open(self.path(key), framework="np") as file:
                found = json.loads(file.metadata()["steps"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None
        return [(Step(step["name"], step["params"]), step["shown"]) for step in found]

    def read(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return images float32 [n, 1, S, S] and bodies bool [n, 1, S, S] of a series that is there."""
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
