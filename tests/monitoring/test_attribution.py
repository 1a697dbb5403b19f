"""Attribution: the stream that did, Holm's correction by hand, and silence where nothing moved."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.monitoring.attribution import attribute, holm


def _streams(rng: np.random.Generator, count: int) -> dict[str, list[object]]:
    return {
        "kernel": rng.choice(["soft", "bone"], size=count).tolist(),
        "noise": rng.normal(size=count).tolist(),
        "rows": [512] * count,
        "spacing": rng.gamma(2.0, size=count).tolist(),
    }


def test_only_the_stream_that_moved_is_named() -> None:
    rng = np.random.default_rng(0)
    before, after = _streams(rng, 120), _streams(rng, 80)
    after["noise"] = [value + 1.0 for value in after["noise"]]  # type: ignore[operator]
    moved = attribute(before, after)
    assert [one.stream for one in moved] == ["noise"]
    after["kernel"] = ["sharp"] * 80
    assert {one.stream for one in attribute(before, after)} == {"kernel", "noise"}
    assert "sharp in 100%" in next(one.sentence() for one in attribute(before, after) if one.stream == "kernel")


def test_false_attributions_are_rarer_than_the_level() -> None:
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hits += bool(attribute(_streams(rng, 40), _streams(rng, 40), alpha=0.05, seed=seed))
    assert hits <= 0.05 * 60 + 5 * np.sqrt(60 * 0.05 * 0.95)


def test_few_scans_say_nothing() -> None:
    assert attribute({"noise": [0.0] * 7}, {"noise": [9.0] * 100}) == []


@pytest.mark.parametrize(
    ("p_values", "corrected"), [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.9, 0.6], [1.0, 1.0]), ([], [])]
)
def test_holm_by_hand(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)
