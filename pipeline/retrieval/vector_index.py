"""An open index: the nearest of its vectors to a query, by squared Euclidean distance.

One version of the index, as it was when it was opened: it may be searched while another process changes the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.segments import Entries
from pipeline.retrieval.structure import Structure

AT_ONCE = 1 << 22  # numbers of a block of vectors that queries are compared with: 16 MB
SPARE = 8  # vectors beyond those requested that are compared again without rounding


@dataclass(frozen=True)
class VectorIndex:
    """Vectors with addresses, and the structure by which they are searched.

    Attributes:
        encoder: JSON that says what made the vectors.
        encoder_sha256: SHA-256 of the encoder, which queries must come from, too.
        config: how it is searched.
        width: of the vectors.
        parts: the entries, in the order of their ids.
        structure: None where every vector is compared.
        version: changes whenever the index does.
    """

    encoder: dict[str, Any]
    encoder_sha256: str
    config: IndexConfig
    width: int
    parts: tuple[Entries, ...]
    structure: Structure | None
    version: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def search(self, queries: np.ndarray, count: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the squared distances and rows of the nearest vectors, nearest first.

        Args:
            queries: float32 [Q, D], from the encoder of the index.
            count: neighbours of each; fewer are returned where the index has fewer.
            exact: compare with every vector, whatever the structure: the truth that the structure is measured by.

        Returns:
            distances float32 and rows int64, [Q, min(count, len(self))]; row -1 at infinity where the cells that a
            query visits hold fewer vectors.

        Raises:
            ConfigError: the queries have another width.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or (len(self) and queries.shape[1] != self.width):
            raise ConfigError(
                f"The queries have the shape {list(queries.shape)}, and the vectors of this index {self.width} "
                "numbers. Encode the queries with the encoder of the index."
            )
        count = min(count, len(self))
        if not count or not len(queries):
            return np.zeros((len(queries), count), np.float32), np.zeros((len(queries), count), np.int64)
        if self.structure is None or exact:
            return self._search_all(queries, count)
        return self._search_codes(self.structure, queries, count)

    def addresses(self, rows: np.ndarray) -> list[str]:
        """Return the addresses of rows, none of which is -1."""
        part, place = self._place(rows)
        return [self.parts[p].addresses[i].decode("ascii") for p, i in zip(part, place, strict=True)]

    def searched_bytes(self, exact: bool = False) -> int:
        """Return the bytes per vector that a search reads through: of its code, of a node of the graph, or of all."""
        if self.structure is None or exact:
            return 4 * self.width
        if self.config.kind == "hnsw":
            return self.width + 8 * self.config.links  # a byte per number, and 2 M links of 4 bytes on the lowest level
        return min(self.config.code_bytes, self.width)

    def list_addresses(self) -> Iterator[str]:
        """Yield every address, in the order of the rows."""
        for part in self.parts:
            for name in part.addresses:
                yield name.decode("ascii")

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the stored vectors of rows, float32 [n, D]."""
        part, place = self._place(rows)
        gathered = np.empty((len(rows), self.width), np.float32)
        for number in np.unique(part):
            mask = part == number
            gathered[mask] = self.parts[number].vectors[place[mask]]
        return gathered

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.parts)])

    @cached_property
    def _ids(self) -> np.ndarray:
        return np.concatenate([part.ids for part in self.parts]) if self.parts else np.zeros(0, np.int64)

    def _place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = np.searchsorted(self._starts, rows, side="right") - 1
        return part, rows - self._starts[part]

    def _search_codes(self, structure: Structure, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        reach = min(len(self), max(count, self.config.rerank))
        distances, ids = structure.search(queries, reach, self.config)
        rows = np.where(ids < 0, -1, np.searchsorted(self._ids, ids))
        if not self.config.rerank:
            return np.where(rows < 0, np.inf, distances)[:, :count], rows[:, :count]
        return self._rerank(queries, rows, count)

    def _search_all(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Compare with all vectors block by block: |x|^2 - 2 qx first, whose rounding the spare ones make up for."""
        reach = min(len(self), count + SPARE)
        best = np.full((len(queries), reach), np.inf, np.float32)
        rows = np.full((len(queries), reach), -1, np.int64)
        for first, block in self._blocks(len(queries)):
            near = np.einsum("nd,nd->n", block, block) - 2 * queries @ block.T
            both = np.concatenate([best, near], axis=1)
            numbers = np.concatenate([rows, np.broadcast_to(first + np.arange(len(block)), near.shape)], axis=1)
            chosen = np.argpartition(both, reach - 1, axis=1)[:, :reach]
            best, rows = np.take_along_axis(both, chosen, 1), np.take_along_axis(numbers, chosen, 1)
        return self._rerank(queries, rows, count)

    def _blocks(self, queries: int) -> Iterator[tuple[int, np.ndarray]]:
        step = max(1, AT_ONCE // max(self.width, queries))
        for start, part in zip(self._starts, self.parts, strict=False):
            for first in range(0, len(part), step):
                yield int(start) + first, np.asarray(part.vectors[first : first + step])

    def _rerank(self, queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Sort candidates [Q, n] by their stored vectors, then by row, and return the nearest `count`."""
        distances = np.full(rows.shape, np.inf, np.float32)
        for query, own, out in zip(queries, rows, distances, strict=True):
            valid = own >= 0
            out[valid] = np.square(self.vectors(own[valid]) - query).sum(axis=1)
        order = np.lexsort((rows, distances), axis=1)[:, :count]
        return np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)


def recall(truth: Sequence[np.ndarray] | np.ndarray, answer: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return the share of each query's true neighbours that an answer has, float64 [Q]."""
    pairs = zip(truth, answer, strict=True)
    return np.array([len({*map(int, a)} & {*map(int, t)}) / max(1, len(t)) for t, a in pairs])
