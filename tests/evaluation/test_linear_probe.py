"""Linear probes: directions of known length and way, and no leak from one patient's images to another's."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import EmptySelection
from pipeline.evaluation.linear_probe import FOLDS, CrossProbe, LinearProbe

SPREAD = np.array([1.0, 5.0, 0.2])


def shifted(count: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose classes differ in the second coordinate alone, by `shift` standard deviations."""
    rng = np.random.default_rng(seed)
    positive = np.arange(count) % 2 == 1
    vectors = rng.normal(size=(count, 3))
    vectors[:, 1] += shift * positive
    return vectors * SPREAD, positive


def test_one_step_along_the_direction_is_the_difference_between_the_classes() -> None:
    vectors, positive = shifted(4000, 1.5)
    probe = LinearProbe.fit(vectors, positive)
    odds = probe.log_odds(vectors)
    assert odds[positive].mean() - odds[~positive].mean() == pytest.approx(probe.gap)
    assert probe.log_odds(vectors + probe.direction) == pytest.approx(odds + probe.gap)
    assert probe.direction == pytest.approx([0, 1.5 * 5, 0], abs=0.6)
    assert probe.log_odds(vectors + probe.along(np.array([1.0, 0, 0]))) == pytest.approx(odds, abs=0.6)
    lengths = [np.linalg.norm(way / probe.spread) for way in (probe.direction, probe.along(np.ones(3)))]
    assert lengths[0] == pytest.approx(lengths[1])


def test_a_probe_that_learned_from_a_patient_does_not_judge_that_patient() -> None:
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(60), 6)
    mark = rng.normal(size=(60, 40))[patient]  # tells patients apart, and nothing of the class
    positive = (np.arange(60) % 2 == 1)[patient]
    vectors = mark + 0.01 * rng.normal(size=mark.shape)
    patients = [f"p{one}" for one in patient]
    assert LinearProbe.fit(vectors, positive).log_odds(vectors)[positive].mean() > 1
    area = CrossProbe.fit(vectors, positive, patients).auroc(vectors)
    assert area.low is not None and area.high is not None and area.low < 0.5 < area.high
    mixed = CrossProbe.fit(vectors, positive, patients)
    assert all(len(set(mixed.fold[patient == one])) == 1 for one in range(60))


def test_directions_are_those_of_the_image_s_own_fold() -> None:
    vectors, positive = shifted(300, 2.0)
    cross = CrossProbe.fit(vectors, positive, [f"p{place // 2}" for place in range(300)])
    assert cross.directions().shape == vectors.shape
    for number, probe in enumerate(cross.probes):
        assert np.array_equal(cross.directions()[cross.fold == number][0], probe.direction)
    assert cross.auroc(vectors).value == pytest.approx(0.92, abs=0.05)  # of two Gaussians 2 sd apart
    ways = [np.eye(3)[0]] * FOLDS
    assert np.allclose(cross.directions(ways)[:, 1:], 0)


def test_a_side_of_too_few_patients_is_refused() -> None:
    vectors, positive = shifted(40, 2.0)
    with pytest.raises(EmptySelection, match="1 patients; 3 are needed"):
        CrossProbe.fit(vectors, positive, ["a", "b"] * 20)
