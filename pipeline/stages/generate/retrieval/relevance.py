"""Relevant neighbours: images of the library that share a query's attributes, or its level along the series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.images.conditions import about_slice
from pipeline.data.sets.selection import Selection
from pipeline.errors import ConfigError
from pipeline.stages.generate.task_images import Slices
from pipeline.types import SliceRef


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which image of the library is relevant to which query.

    Attributes:
        matrix: bool [queries, entries].
        places: column of each address.
        same_patient: bool [queries, entries]: these are never neighbours.
    """

    matrix: np.ndarray
    places: Mapping[str, int]
    same_patient: np.ndarray

    @classmethod
    def of(
        cls, classes: Sequence[str], level: float | None, library: Sequence[SliceRef], queries: Sequence[SliceRef]
    ) -> Relevance:
        """Compare every query with every image of the library.

        Raises:
            ConfigError: every image is relevant to every query, or none is, so nothing can be measured.
        """
        entries = list({ref.content_id: ref for ref in library}.values())
        matrix = _words(queries, classes)[:, None] == _words(entries, classes)
        if level is not None:
            matrix &= np.abs(_places(queries)[:, None] - _places(entries)) <= level
        if matrix.all() or not matrix.any():
            raise ConfigError(
                f"{'Every' if matrix.all() else 'No'} image of the library is relevant to every query, so there is "
                "nothing to measure. Set classes to attributes that differ, or level for images of a series."
            )
        same = np.array([ref.patient_id for ref in queries])[:, None] == np.array([ref.patient_id for ref in entries])
        return cls(matrix, {ref.content_id: place for place, ref in enumerate(entries)}, same)

    def is_relevant(self, query: int, address: str) -> bool:
        """Return whether the image at an address is relevant to a query, by its number."""
        return bool(self.matrix[query, self.places[address]])

    def by_chance(self) -> np.ndarray:
        """Return the share of relevant images among those of other patients, float64 [queries]."""
        others = ~self.same_patient
        return (self.matrix & others).sum(axis=1) / np.maximum(1, others.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Library:
    """What is searched, and what with: normal slices of training patients, and held-out slices in memory."""

    chosen: Selection
    queries: Slices
    relevance: Relevance


def _words(refs: Sequence[SliceRef], classes: Sequence[str]) -> np.ndarray:
    about = map(about_slice, refs)
    return np.array([" ".join(str(one.get(name, "unknown")) for name in classes) for one in about], dtype=object)


def _places(refs: Sequence[SliceRef]) -> np.ndarray:
    return np.array([ref.relative_position for ref in refs])
