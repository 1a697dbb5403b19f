"""The gradient of a detector's score, for attacks on it: the same scores, and the slope of finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.detection.detector import Detector
from pipeline.nn.gradients import keep_gradients
from pipeline.types import Batch


@pytest.mark.parametrize(
    ("method", "residual", "over"),
    [
        ("ae", {"kind": "ssim"}, "top_fraction"),
        ("ae", {"kind": "l1", "median": 3, "erode": 1, "low_pass": 0.05}, "mean"),
        ("ae", {"kind": "l2", "smooth_fraction": 0.03}, "max_smoothed"),
        ("ddpm", {"kind": "l1"}, "top_fraction"),
    ],
)
def test_the_gradient_is_the_slope_of_the_score(
    build: Callable[..., Detector], batch: Batch, method: str, residual: dict[str, Any], over: str
) -> None:
    detector = build(method, residual=residual, aggregate={"map": over, "fraction": 0.2})
    plain = detector.score_batch(batch).scores
    with keep_gradients():
        x = batch.images.clone().requires_grad_()
        scores = detector.score_batch(replace(batch, images=x)).scores
        (gradient,) = torch.autograd.grad(scores.nansum(), x)
    torch.testing.assert_close(scores.detach(), plain, equal_nan=True, rtol=1e-4, atol=1e-5)
    assert not plain.requires_grad and torch.isfinite(gradient).all()
    step = 1e-3 * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-9).reshape(-1, 1, 1, 1)
    moved = [detector.score_batch(replace(batch, images=batch.images + s * step)).scores for s in (1, -1)]
    slope, rise = (gradient * step).flatten(1).sum(dim=1).double(), (moved[0] - moved[1]) / 2
    scored = torch.isfinite(plain)
    torch.testing.assert_close(rise[scored], slope[scored], rtol=0.2, atol=2e-6)
