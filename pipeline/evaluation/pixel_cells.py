"""Pixel values of many patients in bounded memory, with reduced precision only if necessary.

A float32 becomes an unsigned 32-bit key with the same order. Keys are complete until a map has more distinct ones than
its limit; then the lowest bit of every key is dropped, repeatedly until they fit. Cells are therefore nested: two
values are either distinguished or tied, never swapped, and the order of the slices matters only once bits are dropped.
Memory grows with the number of patients (`per_patient` keys each, above the limit), not with their pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

KEY_BITS = 32


@dataclass(slots=True)
class Pile:
    """Keys of one patient and class with their weights.

    Attributes:
        keys: uint32 [n], sorted and distinct.
        weights: float64 [n, K]; column 0 counts pixels.
        pending: keys and weights not yet merged, each sorted and distinct in itself.
    """

    keys: np.ndarray
    weights: np.ndarray
    pending: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @classmethod
    def empty(cls, columns: int) -> Pile:
        """Return a pile without keys, with `columns` weights per key."""
        return cls(np.zeros(0, np.uint32), np.zeros((0, columns)))

    def add(self, keys: np.ndarray, weights: np.ndarray) -> int:
        """Add keys [n] and weights [n, K]; return the number of distinct new keys."""
        merged = merge(keys, weights)
        self.pending.append(merged)
        return len(merged[0])

    def settle(self) -> int:
        """Merge pending keys; return the number of distinct keys."""
        if self.pending:
            parts = [(self.keys, self.weights), *self.pending]
            self.keys, self.weights = merge(*(np.concatenate(column) for column in zip(*parts, strict=True)))
            self.pending = []
        return len(self.keys)

    def drop_bits(self, bits: int) -> int:
        """Drop the lowest bits of every key; return the number of distinct keys left."""
        self.keys, self.weights = _add_equal(self.keys >> np.uint32(bits), self.weights)
        return len(self.keys)


@dataclass(slots=True)
class PixelPool:
    """All pixels of one map: by patient, negatives and positives separately.

    Attributes:
        limit: number of distinct keys to keep; at least `per_patient` keys per patient are always allowed.
        per_patient: see `limit`.
        dropped: number of lowest bits dropped from the keys; 0 as long as every value is exact.
    """

    limit: int
    per_patient: int
    negatives: dict[str, Pile] = field(default_factory=dict)
    positives: dict[str, Pile] = field(default_factory=dict)
    held: int = 0
    dropped: int = 0

    def add(self, patient: str, negatives: np.ndarray, positives: np.ndarray, regions: np.ndarray) -> None:
        """Add the pixels of one slice.

        Args:
            patient: pseudonym.
            negatives: float32 [n].
            positives: float32 [m].
            regions: float64 [m], one over the size of the lesion region that contains the pixel.
        """
        below = self.negatives.setdefault(patient, Pile.empty(1))
        above = self.positives.setdefault(patient, Pile.empty(2))
        self.held += below.add(self._keys(negatives), np.ones((len(negatives), 1)))
        self.held += above.add(self._keys(positives), np.stack([np.ones_like(regions), regions], axis=1))
        allowed = max(self.limit, self.per_patient * len(self.negatives))
        if self.held > allowed:
            self._shrink(allowed)

    def _keys(self, values: np.ndarray) -> np.ndarray:
        return sortable(values) >> np.uint32(self.dropped)

    def _shrink(self, allowed: int) -> None:
        """Merge equal keys, and drop bits until half of the allowed number is free."""
        piles = [*self.negatives.values(), *self.positives.values()]
        self.held = sum(pile.settle() for pile in piles)
        while self.held > allowed // 2 and self.dropped < KEY_BITS - 1:
            self.held = sum(pile.drop_bits(1) for pile in piles)
            self.dropped += 1

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (keys [n] sorted, weights [n, 3]: negatives, positives, regions) over all patients."""
        below, above = _joined(self.negatives.values()), _joined(self.positives.values())
        weights = np.zeros((len(below[0]) + len(above[0]), 3))
        weights[: len(below[0]), :1] = below[1]
        weights[len(below[0]) :, 1:] = above[1]
        return merge(np.concatenate([below[0], above[0]]), weights)

    def histograms(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (negatives, positives, regions), each float64 [P, B], patients sorted by id, cells as `edges` [B]."""
        patients = sorted(self.negatives)
        out = np.zeros((3, len(patients), len(edges)))
        for row, patient in enumerate(patients):
            for pile, first in ((self.negatives[patient], 0), (self.positives[patient], 1)):
                pile.settle()
                cells = np.searchsorted(edges, pile.keys, side="right") - 1
                for column, weights in enumerate(pile.weights.T, first):
                    out[column, row] = np.bincount(cells, weights, len(edges))
        return out[0], out[1], out[2]


def edges_of(keys: np.ndarray, weights: np.ndarray, cells: int) -> np.ndarray:
    """Return at most `cells` lower edges [B] among `keys` [n], the first of them the smallest key.

    Half are at equal mass of the negatives and half of the positives (columns 0 and 1 of `weights`), so that rare
    lesion pixels are resolved as finely as common normal ones.
    """
    share = cells // 2
    chosen = [np.zeros(1, np.intp)]
    for mass in (weights[:, 0], weights[:, 1]):
        running = np.cumsum(mass)
        chosen.append(np.searchsorted(running, running[-1] * np.arange(1, share) / share))
    return keys[np.unique(np.concatenate(chosen))]


def sortable(values: np.ndarray) -> np.ndarray:
    """Return uint32 keys [n] in the order of the float32 values [n]; both zeros are equal, infinities are allowed."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.int32)
    return np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)


def merge(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort keys [n] and add up the weights [n, K] of equal ones."""
    order = np.argsort(keys, kind="stable")
    return _add_equal(keys[order], weights[order])


def _add_equal(ranked: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, np.intp)
    if len(starts) == len(ranked):
        return ranked, weights
    return ranked[starts], np.add.reduceat(weights, starts, axis=0)


def _joined(piles: Iterable[Pile]) -> tuple[np.ndarray, np.ndarray]:
    settled = [pile for pile in piles if pile.settle() >= 0]
    return np.concatenate([pile.keys for pile in settled]), np.concatenate([pile.weights for pile in settled])
