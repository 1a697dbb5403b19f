"""Facts on invented images whose symmetry, foreground and neighbours are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.sets.selection import Selection
from pipeline.errors import EmptySelection
from pipeline.stages.auto.scan_facts import People, alike, measure_facts
from pipeline.types import Label, SliceRef

EDGE = 64


class Store:
    """A store of images by key."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        self.images = images

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        return self.images[key]


def ref(key: str, series: str, label: Label = "normal", patient: str = "p") -> SliceRef:
    values = {"modality": "MR", "body_part": "HEAD", "rows": EDGE, "columns": EDGE, "bits_stored": 16}
    return SliceRef(key, 0, series, "s", patient, key, values, 0.5, label)


def head(generator: np.random.Generator, symmetric: bool) -> np.ndarray:
    """An image whose left half is black air and detail, and whose right half mirrors it, or does not."""
    detail = np.kron(generator.uniform(200, 1000, (16, 16)), np.ones((4, 4)))
    detail[:, :16] = 0
    detail[:, 32:] = detail[:, :32][:, ::-1] if symmetric else detail[:, 32:]
    detail[:, 48:] = 0
    return detail.astype(np.uint16)


def facts_of(symmetric: bool, stacks: bool = False):
    generator = np.random.default_rng(0)
    images, refs = {}, []
    for number in range(12):
        first = head(generator, symmetric)
        for place in range(3 if stacks else 1):
            key = f"{number}-{place}"
            images[key] = first
            refs.append(ref(key, str(number)))
    members: dict[str, tuple[SliceRef, ...]] = {}
    for one in refs:
        members[one.series_id] = (*members.get(one.series_id, ()), one)
    selection = Selection(tuple(refs), (), members)
    return measure_facts(selection, selection, 7, Store(images))


def test_symmetry_is_measured_beside_the_likeness_of_strangers() -> None:
    even, odd = facts_of(True), facts_of(False)
    assert even.symmetry > 0.99 and abs(even.likeness) < 0.3
    assert abs(odd.symmetry) < 0.3


def test_size_range_foreground_and_counts() -> None:
    facts = facts_of(True)
    assert (facts.modality, facts.body_part, facts.eight_bit) == ("MR", "HEAD", False)
    assert (facts.rows, facts.columns, facts.slices_per_series, facts.adjacent) == (EDGE, EDGE, 1, None)
    assert facts.foreground == pytest.approx(0.5, abs=0.1)
    assert facts.low == 0 and 900 < facts.high <= 1000
    assert (facts.train, facts.validate, facts.units) == (12, 12, 7)


def test_neighbours_that_are_the_same_are_alike() -> None:
    facts = facts_of(True, stacks=True)
    assert facts.stacks and facts.adjacent == pytest.approx(1.0)


def test_nothing_to_look_at_is_refused() -> None:
    empty = Selection((), (), {})
    with pytest.raises(EmptySelection):
        measure_facts(empty, empty, 0, Store({}))


def test_patients_are_counted_by_all_of_their_labels() -> None:
    slices = [
        ref("a", "1", "normal", "healthy"),
        ref("b", "1", "unknown", "healthy"),
        ref("c", "2", "normal", "both"),
        ref("d", "2", "abnormal", "both"),
        ref("e", "3", "abnormal", "ill"),
        ref("f", "4", "unknown", "unread"),
    ]
    assert People.count(slices) == People(normal=1, mixed=1, abnormal=1)


def test_likeness_is_a_correlation_over_the_given_pixels() -> None:
    a, where = np.arange(9.0).reshape(3, 3), np.ones((3, 3), bool)
    assert alike(a, 2 * a + 1, where) == pytest.approx(1.0)
    assert alike(a, -a, where) == pytest.approx(-1.0)
    assert np.isnan(alike(a, np.ones((3, 3)), where))
