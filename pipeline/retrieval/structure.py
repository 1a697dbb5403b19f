"""Search structures of faiss over numbered vectors: product-quantised codes in cells, or a graph.

IVF-PQ (Jégou, Douze and Schmid 2011; `faiss.IndexIVFPQ`): a vector is in the cell of its nearest centroid, and its
difference from that centroid is cut into parts, each replaced by the nearest of 256 learned ones: one byte a part. HNSW
(arXiv:1603.09320): a graph of near neighbours. It cannot lose a vector, since the others are linked through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.retrieval.config import CENTROIDS, IndexConfig

Numbered = tuple[np.ndarray, np.ndarray]  # ids int64 [n], vectors float32 [n, D]
FEWEST_PER_CELL = 39  # training vectors: faiss warns below


@dataclass(slots=True)
class Structure:
    """A trained search structure; its ids are those that vectors were added with.

    Attributes:
        index: faiss's.
        width: of the vectors; inside they are padded with zeros to a multiple of the parts of a code.
        trained_on: number of vectors that it was trained on.
    """

    index: Any
    width: int
    trained_on: int

    @classmethod
    def train(cls, sample: np.ndarray, count: int, config: IndexConfig) -> Structure:
        """Return an empty structure for about `count` vectors, trained on `sample` [n, D], n of at least 256."""
        faiss, width = _faiss(), sample.shape[1]
        if config.kind == "hnsw":
            graph = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, config.links)
            graph.hnsw.efConstruction = config.build_effort
            graph.train(np.ascontiguousarray(sample))
            mapped = faiss.IndexIDMap(graph)
            return cls(mapped, width, len(sample))
        cells = min(config.cells or default_cells(count), max(1, len(sample) // FEWEST_PER_CELL))
        parts = min(config.code_bytes, width)
        padded = _padded(sample, parts)
        index = faiss.index_factory(padded.shape[1], f"IVF{cells},PQ{parts}")
        index.do_polysemous_training = False  # minutes of simulated annealing, for a filter that is not used
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # else it warns on the screen
        index.train(padded)
        return cls(index, width, len(sample))

    @property
    def padded_width(self) -> int:
        """Width of the vectors inside."""
        return int(self.index.d)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def add(self, batches: Iterable[Numbered]) -> None:
        """Add numbered vectors, batch by batch."""
        for ids, vectors in batches:
            if len(ids):
                self.index.add_with_ids(self._inside(vectors), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: np.ndarray) -> None:
        """Remove vectors by their ids; a graph cannot, and is built again instead."""
        faiss = _faiss()
        ids = np.ascontiguousarray(ids, np.int64)
        self.index.remove_ids(faiss.IDSelectorBatch(len(ids), faiss.swig_ptr(ids)))

    def search(self, queries: np.ndarray, count: int, config: IndexConfig) -> tuple[np.ndarray, np.ndarray]:
        """Return the squared distances and ids of the nearest codes, [Q, count] each, nearest first; -1 pads."""
        if config.kind == "hnsw":
            graph = _faiss().downcast_index(self.index.index)
            graph.hnsw.efSearch = max(config.search_effort, count)
        else:
            self.index.nprobe = config.probes
        distances, ids = self.index.search(self._inside(queries), count)
        return distances, ids

    def to_bytes(self) -> np.ndarray:
        """Return the structure as uint8 [n], in faiss's own format, which holds numbers only."""
        data: np.ndarray = _faiss().serialize_index(self.index)
        return data

    @classmethod
    def from_bytes(cls, data: np.ndarray, width: int, trained_on: int) -> Structure:
        """Return the structure that `to_bytes` wrote; the bytes must be checked before, as faiss trusts them."""
        return cls(_faiss().deserialize_index(data), width, trained_on)

    def _inside(self, vectors: np.ndarray) -> np.ndarray:
        missing = self.padded_width - vectors.shape[1]
        padded = np.pad(vectors, ((0, 0), (0, missing))) if missing else vectors
        return np.ascontiguousarray(padded, np.float32)


def _faiss() -> Any:
    """Import faiss; its stubs know neither what its factory returns nor its quantisers."""
    import faiss

    return faiss


def default_cells(count: int) -> int:
    """Return the number of cells for an index of `count` vectors: the power of two below twice its square root."""
    return 1 << max(0, int(np.log2(2 * max(count, 1) ** 0.5)))


def _padded(vectors: np.ndarray, parts: int) -> np.ndarray:
    missing = -vectors.shape[1] % parts
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, missing))), np.float32)


def must_train_again(structure: Structure, count: int, config: IndexConfig) -> bool:
    """Return whether an index has outgrown what its structure learned from: it is four times as large."""
    return structure.trained_on < config.train_on and count > 4 * max(structure.trained_on, CENTROIDS)


def in_pieces(batches: Iterable[Numbered], rows: int) -> Iterator[Numbered]:
    """Yield numbered vectors in pieces of at most `rows`, so that copies of them stay small."""
    for ids, vectors in batches:
        for first in range(0, len(ids), rows):
            yield ids[first : first + rows], np.asarray(vectors[first : first + rows])
