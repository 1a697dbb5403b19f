"""A memory of normal features: a fair sample of a stream, a coreset of it, and distances to it in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROWS_AT_ONCE = 2048  # of a distance matrix
SAME = 1e-10  # squared distance, as a share of the largest from the mean, at which two vectors differ by rounding only


class Reservoir:
    """A uniform sample of a stream of vectors; it depends on the seed and the order, not on how the stream is cut.

    Args:
        size: the most vectors that are kept.
        seed: of the draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._draws = np.random.Generator(np.random.Philox(seed))
        self._vectors: list[Tensor] = []
        self._keys = np.empty(0)

    def add(self, vectors: Tensor) -> None:
        """Take in vectors [N, F]: each gets a random key, and those with the largest keys stay, in their order."""
        keys = np.concatenate([self._keys, self._draws.random(len(vectors))])
        together = torch.cat([*self._vectors, vectors])
        kept = np.sort(np.argsort(-keys, kind="stable")[: self.size])
        self._keys, self._vectors = keys[kept], [together[torch.from_numpy(kept)]]

    def vectors(self) -> Tensor:
        """Return what was kept, [<= size, F]; [0, 0] when nothing came."""
        return self._vectors[0] if self._vectors else torch.empty(0, 0)


def k_centres(vectors: Tensor, count: int) -> Tensor:
    """Return the indices of at most `count` vectors [N, F], chosen greedily so that none is far from all of them.

    PatchCore (arXiv:2106.08265), algorithm 1, equation 5: the next centre is the vector farthest from those chosen, the
    first is the farthest from the mean. Fewer than `count` are returned when every vector is one of them already, but
    for rounding.
    """
    nearest = (vectors - vectors.mean(dim=0)).square().sum(dim=1)
    chosen: list[int] = []
    same = SAME * float(nearest.max()) if len(vectors) else 0.0
    while len(chosen) < min(count, len(vectors)):
        i = int(nearest.argmax())
        if chosen and nearest[i] <= same:
            break
        distance = (vectors - vectors[i]).square().sum(dim=1)
        nearest = torch.minimum(nearest, distance) if chosen else distance
        chosen.append(i)
    return torch.tensor(chosen, dtype=torch.int64, device=vectors.device)


def nearest(vectors: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distances to the `count` nearest bank entries, nearest first, and their indices: [N, count].

    The nearest are found by matrix products, in chunks; their distances are then taken exactly, since what the product
    leaves of a small distance is rounding.
    """
    size, found, order = bank.square().sum(dim=1), [], []
    for rows in vectors.split(ROWS_AT_ONCE):
        best = (size - 2 * rows @ bank.T).topk(min(count, len(bank)), largest=False).indices
        exact = (rows[:, None] - bank[best]).norm(dim=2)
        distance, rank = exact.sort(dim=1, stable=True)
        found.append(distance)
        order.append(best.gather(1, rank))
    return torch.cat(found), torch.cat(order)
