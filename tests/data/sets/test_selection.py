"""Selection of slices: which ones, in which order, and what is listed as not scored."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.data.sets.routes import Route
from pipeline.data.sets.selection import count_studies_by_route, select_slices, slices
from pipeline.dicom.decode.geometry import Allowed
from pipeline.errors import ConfigError
from pipeline.types import SliceRef

HEAD = Route(name="ct-head", modality=("CT",), body_part=("HEAD",))
CHEST = Route(name="ct-chest", modality=("CT",), body_part=("CHEST",))


def ids(refs: Any) -> list[str]:
    return [ref.slice_id for ref in refs]


def test_everything_is_chosen_by_default_in_geometric_order(hospital: Any) -> None:
    hospital.series("b", heights=(4.0, 0.0, 2.0))
    hospital.series("a", heights=(7.0,))
    selection = select_slices(hospital.catalogue)
    assert ids(selection.slices) == ["a-0/0", "b-1/0", "b-2/0", "b-0/0"]
    assert [ref.relative_position for ref in selection.slices] == [0.5, 0.0, 0.5, 1.0]
    assert selection.not_scored == ()
    assert ids(selection.members["b"]) == ["b-1/0", "b-2/0", "b-0/0"]
    first = selection.slices[0]
    expected = ("a-0", "a", "t-p", "p", "pixels-a-0", "unknown", None, None)
    assert expected == (
        first.instance_id,
        first.series_id,
        first.study_id,
        first.patient_id,
        first.pixel_key,
        first.label,
        first.set_name,
        first.mask_key,
    )
    assert first.attributes["positions"] == [[0.0, 0.0, 7.0]]


def test_an_empty_catalogue_gives_nothing(hospital: Any) -> None:
    assert slices(hospital.catalogue) == []
    assert select_slices(hospital.catalogue, study_ids=[]).slices == ()


def test_frames_of_an_instance(hospital: Any) -> None:
    hospital.flat("us", "p", count=2, frames=3, modality="US", image_type=("ORIGINAL", "PRIMARY"))
    selected = slices(hospital.catalogue, modality="US")
    # Without geometry the instance number orders: instance 1 has the lower one.
    assert ids(selected) == [f"us-{i}/{frame}" for i in (1, 0) for frame in range(3)]
    assert selected[0].attributes is selected[2].attributes
    assert slices(hospital.catalogue, modality="MR") == []


def test_a_refused_geometry_is_listed_with_its_code(hospital: Any) -> None:
    hospital.series("good")
    hospital.series("gap", heights=(0.0, 2.0, 6.0, 8.0))
    hospital.series("twice", heights=(0.0, 0.0, 2.0))
    selection = select_slices(hospital.catalogue)
    assert {ref.series_id for ref in selection.slices} == {"good"}
    assert {(one.series_id, one.code) for one in selection.not_scored} == {
        ("gap", "missing-slices"),
        ("twice", "duplicate-slices"),
    }
    assert all(one.study_id == "t-p" and len(one.sentence) > 20 for one in selection.not_scored)
    allowed = select_slices(hospital.catalogue, allowed=Allowed(gaps=True))
    assert {ref.series_id for ref in allowed.slices} == {"good", "gap"}


def test_a_route_takes_its_series_and_the_rest_say_why(hospital: Any) -> None:
    hospital.series("head")
    hospital.series("chest", body_part="CHEST")
    hospital.series("foot", body_part="FOOT")
    hospital.series("scout", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    hospital.series("bad-chest", body_part="CHEST", heights=(0.0, 0.0))
    selection = select_slices(hospital.catalogue, route="ct-head", routes=[HEAD, CHEST])
    assert {ref.series_id for ref in selection.slices} == {"head"}
    assert {one.series_id: one.code for one in selection.not_scored} == {"foot": "no-route", "scout": "localiser"}
    both = select_slices(hospital.catalogue, routes=[HEAD, CHEST])
    assert {ref.series_id for ref in both.slices} == {"head", "chest"}
    assert {one.series_id for one in both.not_scored} == {"foot", "scout", "bad-chest"}
    with pytest.raises(ConfigError, match="ct-foot"):
        select_slices(hospital.catalogue, route="ct-foot", routes=[HEAD])
    with pytest.raises(ConfigError, match="ct-head"):
        select_slices(hospital.catalogue, route="ct-head")


def test_studies_narrow(hospital: Any) -> None:
    for patient in "abc":
        hospital.series(f"s-{patient}", patient)
    assert {ref.patient_id for ref in slices(hospital.catalogue, study_ids=["t-a", "t-c"])} == {"a", "c"}
    assert slices(hospital.catalogue, study_ids=["t-x"]) == []


def test_sets_give_only_slices_that_the_law_allows(hospital: Any) -> None:
    for name, set_name in (("trained", "train"), ("tested", "test"), ("incoming", None)):
        hospital.patient(name, set_name)
        hospital.series(f"s-{name}", name)
        hospital.label("study", f"t-{name}", "normal")
        hospital.label("instance", f"s-{name}-1", "abnormal")
        hospital.label("instance", f"s-{name}-2", "unknown")
    selection = select_slices(hospital.catalogue, sets=["train"])
    assert ids(selection.slices) == ["s-trained-0/0"]
    assert ids(selection.members["s-trained"]) == ["s-trained-0/0", "s-trained-1/0", "s-trained-2/0"]
    assert ids(slices(hospital.catalogue, sets=["test"])) == ["s-tested-0/0", "s-tested-1/0"]
    assert len(slices(hospital.catalogue)) == 9  # scoring is for everybody
    assert ids(slices(hospital.catalogue, labels=["abnormal"], sets=["test", "train"])) == ["s-tested-1/0"]


@pytest.mark.parametrize("set_name", ["train", "validate", "calibrate"])
def test_nobody_without_identity_is_trained_on(hospital: Any, set_name: str) -> None:
    hospital.patient("nobody", set_name, identified=False)
    hospital.patient("image", set_name, identified=False, image_is_subject=True)
    for name in ("nobody", "image"):
        hospital.series(f"s-{name}", name)
        hospital.label("patient", name, "normal")
    chosen = slices(hospital.catalogue, sets=[set_name])
    assert {ref.patient_id for ref in chosen} == {"image"}
    assert all(ref.image_is_subject for ref in chosen)


def test_the_choice_does_not_depend_on_other_arguments(hospital: Any) -> None:
    for patient in "abcd":
        hospital.series(f"s-{patient}", patient)
        hospital.label("patient", patient, "normal")
    everything: dict[str, SliceRef] = {ref.slice_id: ref for ref in slices(hospital.catalogue)}
    for studies in (["t-d", "t-b"], ["t-b"]):
        for ref in slices(hospital.catalogue, study_ids=studies):
            assert ref == everything[ref.slice_id]


def test_studies_are_counted_by_route_once_a_study(hospital: Any) -> None:
    hospital.series("chest-1", "a", body_part="CHEST")
    hospital.series("chest-2", "a", body_part="CHEST")
    hospital.series("chest-3", "b", body_part="CHEST")
    hospital.series("head", "b")
    hospital.series("foot", "c", body_part="FOOT")
    assert count_studies_by_route(hospital.catalogue, [HEAD, CHEST]) == {"ct-chest": 2, "ct-head": 1}
