"""The label in effect on a slice, and the other values of its label rows."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.data.catalogue import database
from pipeline.data.labels import effective_label
from pipeline.data.sets.selection import slices


def label_of(hospital: Any, name: str = "s-0/0") -> str:
    return {ref.slice_id: ref.label for ref in slices(hospital.catalogue)}[name]


LEVELS = [("patient", "p"), ("study", "t-p"), ("series", "s"), ("instance", "s-0")]


def test_the_most_specific_level_is_in_effect(hospital: Any) -> None:
    hospital.series("s")
    assert label_of(hospital) == "unknown"
    for index, (level, subject) in enumerate(LEVELS):
        label = ("normal", "abnormal")[index % 2]
        hospital.label(level, subject, label)
        assert label_of(hospital) == label
    assert label_of(hospital, "s-1/0") == "normal"  # the series' own


def test_the_order_in_which_levels_were_labelled_does_not_matter(hospital: Any) -> None:
    hospital.series("s")
    for index, (level, subject) in enumerate(reversed(LEVELS)):
        hospital.label(level, subject, ("abnormal", "normal")[index % 2])
    assert label_of(hospital) == "abnormal"


@pytest.mark.parametrize(("level", "subject"), LEVELS)
def test_the_newest_row_of_a_level_is_in_effect(hospital: Any, level: str, subject: str) -> None:
    hospital.series("s")
    for label in ("normal", "abnormal", "normal", "unknown"):
        hospital.label(level, subject, label)
        assert label_of(hospital) == label


def test_unknown_overrides_the_label_of_a_less_specific_level(hospital: Any) -> None:
    hospital.series("s")
    hospital.label("patient", "p", "normal")
    hospital.label("instance", "s-0", "unknown")
    assert label_of(hospital) == "unknown"
    assert label_of(hospital, "s-1/0") == "normal"


def test_a_subject_of_another_level_with_the_same_name_says_nothing(hospital: Any) -> None:
    hospital.series("s")
    hospital.label("study", "s", "abnormal")
    hospital.label("patient", "t-p", "abnormal")
    hospital.label("instance", "p", "abnormal")
    assert label_of(hospital) == "unknown"


def test_mask_and_position_come_from_the_instance(hospital: Any) -> None:
    hospital.series("s")
    hospital.label("instance", "s-1", "abnormal", mask_key="m1", relative_position=0.31)
    hospital.label("study", "t-p", "abnormal", mask_key="whole", relative_position=0.9)
    first, second, _ = slices(hospital.catalogue)
    assert (first.mask_key, first.relative_position, first.label) == (None, 0.0, "abnormal")
    assert (second.mask_key, second.relative_position) == ("m1", 0.31)


def test_a_later_label_keeps_position_and_mask_unless_it_says_normal(hospital: Any) -> None:
    hospital.series("s")
    hospital.label("instance", "s-1", "abnormal", mask_key="m1", relative_position=0.31)
    hospital.label("instance", "s-1", "abnormal")
    _, second, _ = slices(hospital.catalogue)
    assert (second.mask_key, second.relative_position) == ("m1", 0.31)
    hospital.label("instance", "s-1", "normal")
    _, second, _ = slices(hospital.catalogue)
    assert (second.label, second.mask_key, second.relative_position) == ("normal", None, 0.31)
    hospital.label("instance", "s-1", "abnormal", mask_key="m2", relative_position=0.4)
    _, second, _ = slices(hospital.catalogue)
    assert (second.mask_key, second.relative_position) == ("m2", 0.4)


def test_both_ways_of_reading_give_the_same(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for patient in "abc":
        hospital.series(f"s-{patient}", patient)
        hospital.label("patient", patient, "normal")
        hospital.label("instance", f"s-{patient}-1", "abnormal", mask_key="m", relative_position=0.2)
        hospital.label("instance", f"s-{patient}-1", "normal")
    chunked = slices(hospital.catalogue)
    monkeypatch.setattr(database, "CHUNK", 2)
    assert slices(hospital.catalogue) == chunked
    monkeypatch.setattr(effective_label, "WHOLE", 0)
    assert slices(hospital.catalogue) == chunked
