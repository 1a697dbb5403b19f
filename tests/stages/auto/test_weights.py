"""Weights by held-out paint, budgets, and the two painters."""

from __future__ import annotations

import pytest

from pipeline.stages.auto.held_out_paint import FLOOR, LEAST_SKILL, tells_apart, weight_of
from pipeline.stages.auto.painters import HELD_OUT, LEARNED
from pipeline.stages.auto.timing import LEAST_IMAGES, MOST_IMAGES, divide

CLEAN = [0.0, 1.0, 2.0, 3.0]


def test_auroc_counts_ties_half_and_leaves_out_what_has_no_score() -> None:
    assert tells_apart(CLEAN, [4.0, 5.0, float("nan")]) == 1.0
    assert tells_apart(CLEAN, [-1.0]) == 0.0
    assert tells_apart(CLEAN, [1.0]) == (1 + 0.5) / 4
    assert tells_apart([float("nan")], [1.0]) == 0.5


def test_a_weight_is_trust_times_the_squared_mean_skill() -> None:
    """AUROC 1 is skill 1 and AUROC 1/2 is skill 0: mean 1/2, squared 1/4."""
    weighed = weight_of({"clean": CLEAN, "easy": [9.0] * 4, "hard": CLEAN}, trust=2.0, taught=True)
    assert weighed.auroc == {"easy": 1.0, "hard": 0.5}
    assert weighed.weight == pytest.approx(2.0 * 0.25)


def test_at_chance_what_was_taught_to_find_paint_is_left_out_and_features_keep_a_floor() -> None:
    scores = {"clean": CLEAN, "one": [-5.0] * 4}
    assert weight_of(scores, trust=0.5, taught=True).weight == 0
    assert weight_of(scores, trust=0.5, taught=False).weight == pytest.approx(0.5 * FLOOR)


def test_a_taught_member_counts_from_the_least_skill_on() -> None:
    """Of 100 painted images n are above all clean ones and the rest are equal: AUROC is 1/2 + n/200, skill n/100."""
    for above, counts in ((9, False), (10, True)):
        scores = {"clean": [0.0] * 100, "one": [1.0] * above + [0.0] * (100 - above)}
        weighed = weight_of(scores, trust=1.0, taught=True)
        assert weighed.auroc["one"] == pytest.approx(0.5 + above / 200)
        assert (weighed.weight > 0) is counts is (above / 100 >= LEAST_SKILL)


def test_held_out_lesions_have_textures_or_sizes_that_are_never_learned() -> None:
    learned = {texture.kind for texture in LEARNED.textures}
    for config in HELD_OUT.values():
        strange = {texture.kind for texture in config.textures}.isdisjoint(learned)
        assert strange or config.shape.radius[0] > LEARNED.shape.radius[1]
        assert config.healthy == 0  # every image that counts as painted is


def test_a_budget_is_shared_and_bounded() -> None:
    shares = divide(2.0, {"head": 0.01, "reconstructor": 0.02, "memory": 0.01, "gaussian": 0.01}, normals=500)
    assert shares["memory"].expected == shares["gaussian"].expected == pytest.approx(5.0)
    assert shares["head"].seconds == shares["reconstructor"].seconds == pytest.approx(55.0)
    assert shares["head"].images == int(0.85 * 55 / 0.01) // 16 * 16
    assert sum(share.expected for share in shares.values()) <= 120


@pytest.mark.parametrize(("minutes", "normals", "images"), [(600, 10_000, MOST_IMAGES), (0.05, 500, LEAST_IMAGES)])
def test_more_of_the_same_images_or_too_few_of_them_are_not_planned(minutes: float, normals: int, images: int) -> None:
    assert divide(minutes, {"head": 0.01}, normals)["head"].images == images


def test_few_normals_are_not_repeated_for_ever() -> None:
    assert divide(600, {"head": 0.001}, normals=32)["head"].images == 32 * 300
