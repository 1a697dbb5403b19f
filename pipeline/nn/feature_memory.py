"""Memory of normal features: a uniform sample of a stream, its coreset, and distances to it in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROWS_AT_ONCE = 2048  # rows of the distance matrix computed at once
SAME = 1e-10  # squared distance, relative to the largest from the mean, below which vectors differ only by rounding


class Reservoir:
    """A uniform sample of a stream of vectors; it depends on the seed and the order, not on how the stream is batched.

    Args:
        size: largest number of vectors to keep.
        seed: seed of the draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._draws = np.random.Generator(np.random.Philox(seed))
        self._vectors: list[Tensor] = []
        self._keys = np.empty(0)

    def add(self, vectors: Tensor) -> None:
        """Add vectors [N, F]: each gets a random key, and those with the largest keys are kept in their order."""
        keys = np.concatenate([self._keys, self._draws.random(len(vectors))])
        together = torch.cat([*self._vectors, vectors])
        retained = np.sort(np.argsort(-keys, kind="stable")[: self.size])
        self._keys, self._vectors = keys[retained], [together[torch.from_numpy(retained)]]

    def vectors(self) -> Tensor:
        """Return the retained vectors [<= size, F]; [0, 0] if none were added."""
        return self._vectors[0] if self._vectors else torch.empty(0, 0)


def k_centres(vectors: Tensor, count: int) -> Tensor:
    """Return the indices of at most `count` vectors [N, F], chosen greedily so that no vector is far from all of them.

    PatchCore (arXiv:2106.08265), algorithm 1, equation 5: the next centre is the vector farthest from the chosen ones;
    the first is the farthest from the mean. Fewer than `count` are returned if every vector equals a centre up to
    rounding.
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

    The nearest entries are determined by matrix products, in chunks; their distances are then computed exactly, since
    the product loses small distances to rounding.
    """
    size, distances, order = bank.square().sum(dim=1), [], []
    for rows in vectors.split(ROWS_AT_ONCE):
        best = (size - 2 * rows @ bank.T).topk(min(count, len(bank)), largest=False).indices
        exact = (rows[:, None] - bank[best]).norm(dim=2)
        distance, rank = exact.sort(dim=1, stable=True)
        distances.append(distance)
        order.append(best.gather(1, rank))
    return torch.cat(distances), torch.cat(order)
