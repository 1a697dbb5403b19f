"""PSNR, SSIM and perceptual distance of answers to their targets: closed forms, an independent SSIM, and gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.errors import ConfigError, Rejected
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.paired_quality import judge_pairs, measure_pairs

CONFIG, PATIENTS = EvaluationConfig(resamples=200), [f"p{i // 2}" for i in range(24)]


def images(seed: int = 0) -> Tensor:
    noise = torch.randn(24, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(F.pad(noise, (3, 3, 3, 3), mode="reflect"), 7, 1).mul(4).clamp(-1, 1)


def test_psnr_has_its_closed_form_and_the_same_image_has_the_most() -> None:
    target = 0.5 * images()
    off = measure_pairs(target + 0.02, target)[:, 0]
    assert off == pytest.approx(np.full(24, 20 * np.log10(2 / 0.02)), abs=1e-3)
    assert measure_pairs(target, target) == pytest.approx(np.tile([100.0, 1.0, 0.0], (24, 1)), abs=1e-5)


def test_ssim_equals_an_independent_implementation() -> None:
    target, answer = images(), images() + 0.2 * images(1)

    def smooth(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    def reference(a: np.ndarray, b: np.ndarray) -> float:
        m, n, c1, c2 = smooth(a), smooth(b), 0.01**2, 0.03**2
        v, w, cov = smooth(a * a) - m * m, smooth(b * b) - n * n, smooth(a * b) - m * n
        return float(((2 * m * n + c1) * (2 * cov + c2) / ((m * m + n * n + c1) * (v + w + c2))).mean())

    pairs = zip((answer.double().numpy() + 1) / 2, (target.double().numpy() + 1) / 2, strict=True)
    expected = [reference(a[0], b[0]) for a, b in pairs]
    assert measure_pairs(answer, target)[:, 1] == pytest.approx(expected, abs=1e-4)


def test_at_the_same_psnr_blur_costs_more_perceptual_distance_than_brightness() -> None:
    target = images()
    blurred = F.avg_pool2d(target, 5, 1, 2, count_include_pad=False)
    error = (blurred - target).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    rows = judge_pairs({"blurred": blurred, "brighter": target + error}, target, PATIENTS, CONFIG)
    assert rows[1].psnr_gain is not None and rows[1].psnr_gain.value == pytest.approx(0, abs=1e-3)
    gain = rows[1].perceptual_gain
    assert gain is not None and gain.high is not None and gain.high < 0
    assert rows[0].psnr_gain is None, "the baseline has no gain over itself"


def test_a_gain_is_paired_so_its_interval_is_narrower_than_that_of_a_mean() -> None:
    target = images()
    strength = torch.linspace(0.02, 0.4, 24)[:, None, None, None]  # patients differ much more than answers
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(4))
    answers = {"first": target + strength * noise, "second": target + 0.9 * strength * noise}
    second = judge_pairs(answers, target, PATIENTS, CONFIG)[1]
    gain = second.psnr_gain
    assert gain is not None and gain.value == pytest.approx(-20 * np.log10(0.9), abs=1e-3)
    assert gain.low is not None and gain.high is not None and second.psnr.low is not None
    assert gain.high - gain.low < 0.01 * (second.psnr.high - second.psnr.low)


def test_in_a_region_only_its_own_errors_count() -> None:
    target, region = images(), torch.zeros(24, 1, 32, 32, dtype=torch.bool)
    region[..., 8:16, 8:16] = True
    wrong_inside, wrong_outside = (target + 0.2 * mask.float() for mask in (region, ~region))
    rows = judge_pairs({"inside": wrong_inside, "outside": wrong_outside}, target, PATIENTS, CONFIG, region)
    assert [row.psnr.value for row in rows] == pytest.approx([20, 100], abs=1e-3)


def test_pairs_that_do_not_fit_are_refused() -> None:
    target = images()
    with pytest.raises(ConfigError, match="bicubic"):
        judge_pairs({"bicubic": target[..., :16]}, target, PATIENTS, CONFIG)
    with pytest.raises(ConfigError, match="23 patients"):
        judge_pairs({"bicubic": target}, target, PATIENTS[1:], CONFIG)
    with pytest.raises(ConfigError, match="region"):
        judge_pairs({"bicubic": target}, target, PATIENTS, CONFIG, torch.zeros(24, 1, 32, 32, dtype=torch.bool))
    with pytest.raises(Rejected):
        judge_pairs({"bicubic": torch.full_like(target, torch.nan)}, target, PATIENTS, CONFIG)
