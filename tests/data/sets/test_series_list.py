"""Every series with its route, label and set, and a code where it is not learned from."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.data.sets.routes import Route
from pipeline.data.sets.selection import select_slices
from pipeline.data.sets.series_list import ListedSeries, count_causes, list_series, used_slices
from pipeline.dicom.decode.geometry import Allowed

ROUTES = [
    Route(name="ct-head", modality=("CT",), body_part=("HEAD",)),
    Route(name="ct-chest", modality=("CT",), body_part=("CHEST",)),
]


@pytest.fixture
def filled(hospital: Any) -> Any:
    """One series for each fate."""
    for name, set_name in (("train", "train"), ("test", "test"), ("sick", "calibrate"), ("fresh", None)):
        hospital.patient(name, set_name)
        hospital.series(f"s-{name}", name)
        hospital.label("study", f"t-{name}", "abnormal" if name in ("sick", "test") else "normal")
    hospital.patient("nobody", None, identified=False)
    hospital.series("s-nobody", "nobody")
    hospital.label("patient", "nobody", "normal")
    hospital.series("s-gap", "gap", heights=(0.0, 2.0, 6.0, 8.0))
    hospital.label("instance", "s-gap-1", "normal")
    hospital.series("s-foot", "foot", body_part="FOOT")
    hospital.label("series", "s-foot", "normal")
    hospital.series("s-incoming", "incoming")
    hospital.series("s-chest", "chest", body_part="CHEST")
    return hospital


def by_id(listed: list[ListedSeries]) -> dict[str, ListedSeries]:
    return {one.series_id: one for one in listed}


def test_each_series_has_its_code(filled: Any) -> None:
    listed = by_id(list_series(filled.catalogue, ROUTES))
    assert {name: one.code for name, one in listed.items()} == {
        "s-train": "",
        "s-test": "",
        "s-sick": "not-normal",
        "s-fresh": "no-set",
        "s-nobody": "no-patient-id",
        "s-gap": "missing-slices",
        "s-foot": "no-route",
        "s-incoming": "no-label",
        "s-chest": "no-label",
    }
    assert all(bool(one.sentence) == bool(one.code) for one in listed.values())
    assert (listed["s-gap"].label, listed["s-gap"].route, listed["s-gap"].slices) == ("mixed", "ct-head", 4)
    assert (listed["s-foot"].route, listed["s-chest"].route) == ("", "ct-chest")
    assert (listed["s-train"].kind, listed["s-train"].used, listed["s-train"].set_name) == ("primary", 3, "train")
    assert count_causes(listed.values())["no-label"] == 2


@pytest.mark.parametrize("allowed", [Allowed(), Allowed(gaps=True)])
def test_the_list_counts_what_a_run_selects(filled: Any, allowed: Allowed) -> None:
    for name in ("train", "calibrate", "test"):
        on_route = [one for one in list_series(filled.catalogue, ROUTES, allowed) if one.route == "ct-head"]
        chosen = select_slices(filled.catalogue, route="ct-head", routes=ROUTES, sets=[name], allowed=allowed)
        assert {ref.slice_id for ref in used_slices(on_route, name)} == {ref.slice_id for ref in chosen.slices}


def test_sets_of_a_fold_take_precedence(filled: Any) -> None:
    listed = by_id(list_series(filled.catalogue, ROUTES, sets_of={"train": "develop", "fresh": "train"}))
    assert (listed["s-train"].set_name, listed["s-fresh"].set_name, listed["s-fresh"].used) == ("develop", "train", 3)
