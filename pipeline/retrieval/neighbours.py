"""Neighbours of different patients: the nearest entries of an index, one per patient, never of the query's own.

An index holds no patients, so they are asked of the catalogue at every search. An entry whose pixels are no longer
there has no patient, and is never a neighbour, even before it is removed from the index.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.retrieval.vector_index import VectorIndex

FIRST_REACH, FURTHER = 64, 4  # entries considered first, and how many times as many where they are too few

# The patients of each address; several where the same pixels came under several names, and absent where they are gone.
PatientsOf = Callable[[Collection[str]], Mapping[str, Collection[str]]]
Penalty = Callable[[int, Sequence[str]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry: the address of its pixels, and the squared distance between its vector and the query's."""

    address: str
    distance: float


def find_neighbours(
    index: VectorIndex,
    queries: np.ndarray,
    own: Sequence[Collection[str]],
    count: int,
    patients_of: PatientsOf,
    penalty: Penalty | None = None,
    exact: bool = False,
) -> list[list[Neighbour]]:
    """Return the nearest entries of each query, each of another patient, nearest first.

    Args:
        index: the open index.
        queries: float32 [Q, D], from its encoder.
        own: patients of each query, who are left out.
        count: neighbours of each; fewer where there are fewer patients.
        patients_of: looks up patients.
        penalty: what is added to the distances of the entries considered, by the query's number and their addresses.
        exact: see `VectorIndex.search`.
    """
    answers: list[list[Neighbour]] = [[] for _ in queries]
    pending, reach = list(range(len(queries))), max(FIRST_REACH, FURTHER * count)
    while pending and len(index):
        distances, rows = index.search(queries[pending], reach, exact)
        open_queries = []
        for number, near, own_rows in zip(pending, distances, rows, strict=True):
            valid = own_rows >= 0
            addresses = index.addresses(own_rows[valid])
            extra = 0.0 if penalty is None else penalty(number, addresses)
            order = np.argsort(near[valid] + extra, kind="stable")
            answers[number] = _apart(addresses, near[valid], order, patients_of(addresses), own[number], count)
            if len(answers[number]) < count:
                open_queries.append(number)
        pending = open_queries if reach < len(index) else []
        reach *= FURTHER
    return answers


def _apart(
    addresses: Sequence[str],
    distances: np.ndarray,
    order: np.ndarray,
    patients: Mapping[str, Collection[str]],
    own: Collection[str],
    count: int,
) -> list[Neighbour]:
    taken, near = set(own), []
    for place in order:
        owners = patients.get(addresses[place], ())
        if owners and taken.isdisjoint(owners):
            taken.update(owners)
            near.append(Neighbour(addresses[place], float(distances[place])))
        if len(near) == count:
            break
    return near
