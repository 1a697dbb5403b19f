"""Weights by held-out paint, budgets, and the two painters."""

from __future__ import annotations

import pytest

from pipeline.stages.auto.held_out_paint import FLOOR, tells_apart, weight_of
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
    weighed = weight_of({"clean": CLEAN, "easy": [9.0] * 4, "hard": CLEAN}, trust=2.0)
    assert weighed.auroc == {"easy": 1.0, "hard": 0.5}
    assert weighed.weight == pytest.approx(2.0 * 0.25)


def test_a_member_at_chance_or_below_keeps_a_floor() -> None:
    assert weight_of({"clean": CLEAN, "one": [-5.0] * 4}, trust=0.5).weight == pytest.approx(0.5 * FLOOR)


def test_held_out_lesions_have_textures_or_sizes_that_are_never_learned() -> None:
    learned = {texture.kind for texture in LEARNED.textures}
    for config in HELD_OUT.values():
        strange = {texture.kind for texture in config.textures}.isdisjoint(learned)
        assert strange or config.shape.radius[0] > LEARNED.shape.radius[1]
        assert config.healthy == 0  # every image that counts as painted is


def test_a_budget_is_shared_and_bounded() -> None:
    shares = divide(2.0, {"head": 0.01, "reconstructor": 0.02, "features": 0.02}, normals=500)
    assert shares["features"].expected == pytest.approx(10.0)
    assert shares["head"].seconds == shares["reconstructor"].seconds == pytest.approx(55.0)
    assert shares["head"].images == int(0.85 * 55 / 0.01) // 16 * 16
    assert sum(share.expected for share in shares.values()) <= 120


@pytest.mark.parametrize(("minutes", "normals", "images"), [(600, 10_000, MOST_IMAGES), (0.05, 500, LEAST_IMAGES)])
def test_more_of_the_same_images_or_too_few_of_them_are_not_planned(minutes: float, normals: int, images: int) -> None:
    assert divide(minutes, {"head": 0.01}, normals)["head"].images == images


def test_few_normals_are_not_repeated_for_ever() -> None:
    assert divide(600, {"head": 0.001}, normals=32)["head"].images == 32 * 300
