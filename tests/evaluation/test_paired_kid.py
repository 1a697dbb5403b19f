"""KID of answers against their own originals: exact ones have 0, blurred ones much more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.distribution_distance import kid
from pipeline.evaluation.paired_kid import judge_likeness, paired_kid

FEW = EvaluationConfig(resamples=200)


def textured(count: int, seed: int) -> torch.Tensor:
    """Images of random stripes with noise."""
    rng = torch.Generator().manual_seed(seed)
    angle, phase = (6.3 * torch.rand(count, 1, 1, 1, generator=rng) for _ in range(2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    stripes = torch.sin(9 * (x * angle.cos() + y * angle.sin()) + phase)
    return (0.5 * stripes + 0.2 * torch.randn(count, 1, 32, 32, generator=rng)).clamp(-1, 1)


def test_exact_answers_have_nothing_and_blurred_ones_much() -> None:
    real = textured(40, 0)
    answers = {"exact": real, "blurred": F.avg_pool2d(real, 5, 1, 2)}
    likeness = judge_likeness(answers, real, [f"p{n // 2}" for n in range(40)], FEW)
    assert likeness["exact"].value == likeness["exact"].high == 0
    assert likeness["blurred"].low is not None and likeness["blurred"].low > 0.1


def test_it_is_the_usual_kid_without_the_pairs_of_one_patient() -> None:
    rng = np.random.default_rng(0)
    real, answers = rng.normal(size=(300, 5)), rng.normal(0.5, 1, size=(300, 5))
    own = paired_kid(answers, real, np.arange(300))(np.ones((1, 300)))[0, 0]
    assert own == pytest.approx(kid(real, answers), rel=0.05)
    others = rng.normal(size=(300, 5))
    assert abs(paired_kid(others, real, np.arange(300))(np.ones((1, 300)))[0, 0]) < 0.1 * own


def test_a_patient_left_out_has_no_part_in_it() -> None:
    rng = np.random.default_rng(1)
    real, answers, owners = rng.normal(size=(12, 4)), rng.normal(size=(12, 4)), np.arange(12) // 3
    weights = np.array([[1.0, 1.0, 0.0, 1.0]])
    without = paired_kid(answers, real, owners)(weights)[0, 0]
    rest = owners != 2
    alone = paired_kid(answers[rest], real[rest], np.unique(owners[rest], return_inverse=True)[1])(np.ones((1, 3)))
    assert without == pytest.approx(alone[0, 0])
    assert np.isnan(paired_kid(answers, real, owners)(np.array([[0.0, 2.0, 0.0, 0.0]]))[0, 0])
