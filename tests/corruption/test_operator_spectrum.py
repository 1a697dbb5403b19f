"""Spectra of degradations: A = U S V^T, with V orthogonal, and the pseudo-inverse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.operator_spectrum import spectrum_of
from pipeline.nn.rng import Rng


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"kind": "downsample", "factor": 4}],
        [{"kind": "blur", "sigma_pixels": 0.6}],
        [{"kind": "box"}],
        [{"kind": "cartesian", "acceleration": 3}],
        [{"kind": "radial", "count": 4}],
    ],
)
def test_a_degradation_is_its_spectrum(steps: list[dict[str, Any]]) -> None:
    way = DegradationConfig.model_validate({"steps": steps, "noise": {"kind": "gaussian"}})
    operator, x = (
        way.operator(Rng([3, 4]), (16, 16)),
        torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)),
    )
    spectrum = spectrum_of(operator)
    assert spectrum is not None
    rotated = spectrum.rotate(x)
    torch.testing.assert_close(spectrum.back(rotated), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(rotated.abs().square().sum(), x.square().sum())
    y = operator.forward(x)
    length = (spectrum.values * rotated).abs().square().flatten(1).sum(dim=1)
    torch.testing.assert_close(length, y.square().flatten(1).sum(dim=1), rtol=1e-4, atol=0)
    seen = torch.where(spectrum.values > 0, rotated, torch.zeros_like(rotated))
    torch.testing.assert_close(spectrum.read(y), seen, atol=2e-3, rtol=0)


def test_several_steps_have_no_common_spectrum() -> None:
    way = DegradationConfig.model_validate({"steps": [{"kind": "blur"}, {"kind": "downsample", "factor": 2}]})
    assert spectrum_of(way.operator(Rng([0]), (16, 16))) is None
