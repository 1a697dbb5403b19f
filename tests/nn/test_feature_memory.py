"""Memory of features: a fair sample, greedy centres against brute force, distances as scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.testing import assert_close

from pipeline.nn.feature_memory import Reservoir, k_centres, nearest
from pipeline.nn.rng import Rng


def points(count: int, width: int, key: int = 1) -> Tensor:
    return Rng([key]).normal(count, width)[0]


def test_greedy_centres_are_those_of_brute_force() -> None:
    vectors = points(60, 5).double().numpy()
    chosen = [int(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmax())]
    while len(chosen) < 12:
        distances = [min(np.linalg.norm(v - vectors[c]) for c in chosen) for v in vectors]
        chosen.append(int(np.argmax(distances)))
    assert k_centres(torch.from_numpy(vectors), 12).tolist() == chosen


def test_greedy_centres_are_within_twice_the_best_radius() -> None:
    # Gonzalez 1985: the greedy radius is at most twice the optimal one, found here by trying every triple.
    from itertools import combinations

    vectors = points(14, 2, key=4)
    distances = torch.cdist(vectors, vectors)
    best = min(distances[list(triple)].amin(dim=0).max() for triple in combinations(range(14), 3))
    assert distances[k_centres(vectors, 3)].amin(dim=0).max() <= 2 * best


def test_repeated_vectors_are_chosen_once() -> None:
    vectors = points(3, 4).repeat(5, 1)
    assert sorted((k_centres(vectors, 10) % 3).tolist()) == [0, 1, 2]
    assert len(k_centres(torch.ones(4, 2), 3)) == 1 and len(k_centres(points(2, 2), 9)) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_nearest_are_those_of_scikit_learn(count: int) -> None:
    vectors, bank = points(5000, 7, 1), points(300, 7, 2)
    distance, index = nearest(vectors, bank, count)
    theirs, order = NearestNeighbors(n_neighbors=count, algorithm="kd_tree").fit(bank.numpy()).kneighbors(vectors)
    assert_close(distance.double(), torch.from_numpy(theirs).double(), rtol=1e-5, atol=1e-6)
    assert (index.numpy() == order).mean() > 0.999


def test_a_remembered_vector_is_at_distance_zero_exactly() -> None:
    bank = 1000 + points(50, 30)
    assert nearest(bank[7:9], bank, 1)[0].abs().max() == 0
    assert nearest(bank[:1], bank[:2], 5)[0].shape == (1, 2)


def test_the_sample_does_not_depend_on_how_the_stream_is_cut() -> None:
    stream, samples = torch.arange(500.0)[:, None], []
    for size in (1, 7, 500):
        reservoir = Reservoir(40, seed=3)
        for part in stream.split(size):
            reservoir.add(part)
        samples.append(reservoir.vectors())
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])
    assert len(samples[0].unique()) == 40 and len(Reservoir(4, 0).vectors()) == 0


def test_the_sample_is_fair() -> None:
    # Each of 20 items is among 5 with probability 1/4: over 2000 seeds, 500 +- 19.4, five deviations allowed.
    counts = torch.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, seed)
        reservoir.add(torch.arange(20.0)[:, None])
        counts[reservoir.vectors()[:, 0].long()] += 1
    assert (counts - 500).abs().max() < 5 * 19.4
