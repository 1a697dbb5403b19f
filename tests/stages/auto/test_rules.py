"""Every rule of an automatic run, on both sides of its border: facts in, choice out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.images.normalise import parse_normaliser
from pipeline.data.sets.splits import SplitPolicy
from pipeline.errors import TooFewNormals
from pipeline.stages.auto import rules
from pipeline.stages.auto.scan_facts import Facts, People

HEADS = Facts("MR", "HEAD", False, 256, 240, 24, 0.0, 900.0, 0.4, 0.6, 0.1, 0.9, 2400, 300, 60)
CHEST = replace(HEADS, modality="CR", body_part="CHEST", slices_per_series=1, adjacent=None, foreground=0.95)


def test_the_sets_follow_the_patients_who_are_normal_throughout() -> None:
    many, few = rules.choose_sets(People(300, 5, 40)), rules.choose_sets(People(24, 5, 40))
    assert many.value == {"unit": "study", "splits": {}}
    assert few.value["unit"] == "study"
    assert SplitPolicy.model_validate(few.value["splits"]).normals["calibrate"] == 0.3
    assert not SplitPolicy.model_validate(few.value["splits"]).mixed_patients


def test_normal_slices_of_diseased_patients_are_taken_where_nobody_else_has_any() -> None:
    choice = rules.choose_sets(People(0, 73, 0))
    policy = SplitPolicy.model_validate(choice.value["splits"])
    assert choice.value["unit"] == "slice" and policy.mixed_patients and policy.mixed["train"] == 0.45
    assert rules.choose_sets(People(10, 14, 0)).value["unit"] == "slice"


def test_too_few_patients_are_refused_with_their_number() -> None:
    with pytest.raises(TooFewNormals) as refused:
        rules.choose_sets(People(10, 13, 500))
    assert (refused.value.have, refused.value.need) == (23, rules.LEAST_PATIENTS)


@pytest.mark.parametrize(
    ("counts", "have", "need"), [((11, 50, 50), 11, 12), ((50, 9, 50), 9, 10), ((50, 50, 3), 3, 4)]
)
def test_a_set_that_is_too_small_is_refused(counts: tuple[int, int, int], have: int, need: int) -> None:
    with pytest.raises(TooFewNormals) as refused:
        rules.require_normals(*counts)
    assert (refused.value.have, refused.value.need) == (have, need)


def test_sets_that_are_just_large_enough_pass() -> None:
    rules.require_normals(12, 10, 4)


@pytest.mark.parametrize(("pixels", "size"), [(28, 32), (47, 32), (48, 64), (111, 64), (112, 128), (2500, 128)])
def test_the_size_follows_the_longer_side(pixels: int, size: int) -> None:
    assert rules.choose_size(replace(HEADS, rows=pixels, columns=20)).value == size
    assert rules.choose_size(replace(HEADS, rows=20, columns=pixels)).value == size


@pytest.mark.parametrize(
    ("changes", "kind", "body"),
    [
        ({"modality": "CT"}, "ct_window", "threshold"),
        ({"modality": "CT", "eight_bit": True}, "fixed_range", "threshold"),
        ({}, "mr_percentile", "otsu"),
        ({"eight_bit": True}, "mr_percentile", "otsu"),
        ({"modality": "CR"}, "range", "frame"),
        ({"modality": "CR", "eight_bit": True}, "fixed_range", "frame"),
        ({"modality": "OT", "eight_bit": True}, "fixed_range", "threshold"),
        ({"modality": "OT", "eight_bit": True, "foreground": 0.9}, "fixed_range", "frame"),
        ({"modality": "US", "eight_bit": True}, "fixed_range", "frame"),
        ({"modality": "US"}, "range", "frame"),
        ({"modality": "NM"}, "range", "otsu"),
    ],
)
def test_intensities_follow_the_modality(changes: dict[str, object], kind: str, body: str) -> None:
    normaliser = parse_normaliser(rules.choose_normaliser(replace(HEADS, **changes), 64).value)
    assert (normaliser.kind, normaliser.body.method, normaliser.image_size) == (kind, body, 64)


@pytest.mark.parametrize(("part", "window"), [("HEAD", (40, 80)), ("CHEST", (40, 400)), ("", (40, 400))])
def test_the_window_of_ct_follows_the_body_part(part: str, window: tuple[int, int]) -> None:
    value = rules.choose_normaliser(replace(HEADS, modality="CT", body_part=part), 64).value
    assert (value["centre"], value["width"]) == window


@pytest.mark.parametrize(
    ("symmetry", "likeness", "seen"), [(0.6, 0.1, True), (0.6, 0.55, False), (0.35, 0.0, False), (0.95, 0.8, True)]
)
def test_the_mirror_image_must_say_more_than_a_stranger_does(symmetry: float, likeness: float, seen: bool) -> None:
    assert rules.choose_mirror(replace(HEADS, symmetry=symmetry, likeness=likeness)).value is seen


@pytest.mark.parametrize(
    ("slices", "adjacent", "weight"), [(24, 0.9, 1.0), (24, 0.5, 0.0), (2, 0.9, 0.0), (1, None, 0.0)]
)
def test_neighbours_are_averaged_in_stacks_of_slices_that_are_alike(
    slices: int, adjacent: float | None, weight: float
) -> None:
    assert rules.choose_adjacent(replace(HEADS, slices_per_series=slices, adjacent=adjacent)).value == weight


def test_the_reconstructor_follows_size_and_number_unless_it_is_asked_for() -> None:
    assert rules.choose_reconstructor(HEADS, 32, None).value == "gated_dae"
    assert rules.choose_reconstructor(replace(HEADS, train=199), 128, None).value == "gated_dae"
    assert rules.choose_reconstructor(replace(HEADS, train=200), 128, None).value == "ladder_vae"
    assert rules.choose_reconstructor(HEADS, 32, "cold_diffusion").value == "cold_diffusion"


def test_small_images_are_enlarged_for_the_frozen_network() -> None:
    assert rules.choose_features(64).value["backbone"]["input_size"] is None
    assert rules.choose_features(32).value["backbone"]["input_size"] == 64


def test_projections_trust_features_and_score_the_whole_map() -> None:
    assert CHEST.projection and not HEADS.projection
    assert rules.choose_score(CHEST).value["features"] == 1.0 > rules.choose_score(HEADS).value["features"]
    trust = rules.choose_trust(CHEST).value
    assert trust["memory"] == trust["gaussian"] > trust["reconstructor"] > trust["head"]
    assert trust["memory"] + trust["gaussian"] == 1
    slices = rules.choose_trust(HEADS).value
    assert slices["head"] == slices["reconstructor"] == slices["memory"] + slices["gaussian"]


@pytest.mark.parametrize(("units", "alpha"), [(60, 0.05), (19, 0.05), (18, 0.1), (9, 0.1), (8, 0.2), (4, 0.2)])
def test_the_false_positive_rate_is_one_that_the_calibration_allows(units: int, alpha: float) -> None:
    assert rules.choose_flagging(replace(HEADS, units=units)).value == {"rule": "fpr", "alpha": alpha}
