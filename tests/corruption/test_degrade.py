"""Degradations: exact adjoints, antialiasing, masks, k-space and the physics of noise."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.degrade_masks import hide
from pipeline.corruption.degrade_noise import PoissonNoise, RicianNoise
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

SIZE = 32
LINEAR: dict[str, list[dict[str, Any]]] = {
    "half": [{"kind": "downsample", "factor": 2}],
    "quarter": [{"kind": "downsample"}],
    "blur": [{"kind": "blur", "sigma_pixels": 1.3}],
    "strokes": [{"kind": "strokes"}],
    "box": [{"kind": "box"}],
    "border": [{"kind": "border"}],
    "tiles": [{"kind": "tiles"}],
    "rectangles": [{"kind": "rectangles", "boxes": [[0, 0.5, 0.25, 1]]}],
    "cartesian": [{"kind": "cartesian"}],
    "radial": [{"kind": "radial"}],
    "blurred, then smaller": [{"kind": "blur"}, {"kind": "downsample", "factor": 2}],
    "smaller, then hidden": [{"kind": "downsample", "factor": 2}, {"kind": "box"}],
    "smaller twice": [{"kind": "downsample", "factor": 2}, {"kind": "downsample", "factor": 4}],
}


def way(steps: list[dict[str, Any]], noise: dict[str, Any] | None = None) -> DegradationConfig:
    return DegradationConfig.model_validate({"steps": steps, "noise": noise})


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("steps", LINEAR.values(), ids=LINEAR)
@pytest.mark.parametrize("spatial", [(SIZE, SIZE), (3, SIZE, SIZE)], ids=["slices", "volumes"])
def test_adjoints_are_exact_and_nothing_is_lost_on_the_grid(
    steps: list[dict[str, Any]], spatial: tuple[int, ...]
) -> None:
    x = images(4, 2, *spatial).double()
    operator = way(steps).operator(Rng(range(4)), spatial)
    y = operator.forward(x)
    u = torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    products = [(a * b).flatten(1).sum(dim=1) for a, b in ((y, u), (x, operator.adjoint(u)))]
    torch.testing.assert_close(*products, rtol=1e-5, atol=1e-5)
    picture = operator.show(y)
    assert picture.shape == x.shape and torch.equal(operator.read(picture), y)
    assert (operator.forward(3 * x) - 3 * y).abs().max() < 1e-5, "linear"


@pytest.mark.parametrize("steps", LINEAR.values(), ids=LINEAR)
def test_a_row_depends_on_its_own_stream_and_has_a_gradient(steps: list[dict[str, Any]]) -> None:
    x = images(4, 1, SIZE, SIZE).requires_grad_()
    degradation = way(steps, {"kind": "rician", "std": 0.1})
    worse = degradation.degrade(x, Rng(range(4)))
    alone = degradation.degrade(x[2:3], Rng([2]))
    torch.testing.assert_close(alone.images[0], worse.images[2], rtol=1e-5, atol=1e-6)
    assert torch.equal(alone.missing[0], worse.missing[2]) and worse.images.shape == x.shape
    assert re.fullmatch(r"[\w./ -]+", degradation.label), "MLflow takes it as part of a metric's name"
    (gradient,) = torch.autograd.grad(worse.images.sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    assert not worse.images[worse.missing.expand_as(x) > 0].any()


def test_downsampling_keeps_a_ramp_and_removes_what_would_alias() -> None:
    ramp = torch.linspace(-1, 1, SIZE).expand(1, 1, SIZE, SIZE)
    y = way(LINEAR["quarter"]).operator(Rng([0]), (SIZE, SIZE)).forward(ramp)
    torch.testing.assert_close(y[..., 2:-2], ramp.unfold(3, 4, 4).mean(-1)[..., ::4, :][..., 2:-2], atol=1e-5, rtol=0)
    stripes = torch.tensor([1.0, -1.0]).repeat(SIZE // 2).expand(1, 1, SIZE, SIZE)
    small = way(LINEAR["half"]).operator(Rng([0]), (SIZE, SIZE)).forward(stripes)
    assert small[..., 2:-2].abs().max() < 1e-5, "every other pixel alone would give 1 everywhere"


def test_k_space_is_kept_where_it_was_measured_and_zero_elsewhere() -> None:
    x, rng = images(6, 1, 64, 64), Rng(range(6))
    for kind, least, most in (("cartesian", 0.2, 0.3), ("radial", 0.2, 0.4)):
        (operator,) = way([{"kind": kind}]).operator(rng, (64, 64)).parts
        before, after = np.fft.fft2(x.numpy()), np.fft.fft2(operator.forward(x).numpy())
        measured = operator.measured.numpy()
        np.testing.assert_allclose(after[measured], before[measured], atol=1e-3)
        assert np.abs(after[~measured]).max() < 1e-3
        assert least < measured.mean() < most and measured[..., 0, 0].all()
        assert not torch.equal(operator.measured[0], operator.measured[1]), "each row has its own lines"


@pytest.mark.parametrize("kind", ["strokes", "box", "border", "tiles"])
@pytest.mark.parametrize("size", [16, 64])
def test_masks_hide_some_pixels_and_leave_others(kind: str, size: int) -> None:
    missing = way([{"kind": kind}]).degrade(images(64, 1, size, size), Rng(range(64))).missing
    share = missing.mean(dim=(1, 2, 3))
    assert share.min() > 0 and share.max() < 0.85 and set(missing.unique().tolist()) == {0.0, 1.0}


def test_both_colours_of_tiles_hide_every_pixel_once() -> None:
    both = [way([{"kind": "tiles", "colour": one}]).degrade(images(1, 1, 64, 64), Rng([0])).missing for one in (0, 1)]
    assert torch.equal(both[0] + both[1], torch.ones(1, 1, 64, 64))


def test_rician_noise_has_the_moments_of_a_magnitude() -> None:
    std, rng = 0.2, Rng(range(4))
    y = torch.tensor([-1.0, -1.0, 0.5, 0.5])[:, None, None, None].expand(4, 1, 200, 200)
    noisy = RicianNoise(std=std).add(y, rng)
    assert float(noisy[:2].mean()) + 1 == pytest.approx(std * math.sqrt(math.pi / 2), rel=0.01)  # Rayleigh
    assert float(noisy[:2].var()) == pytest.approx((2 - math.pi / 2) * std**2, rel=0.02)
    assert float((noisy[2:] + 1).square().mean()) == pytest.approx(1.5**2 + 2 * std**2, rel=0.005)


def test_poisson_noise_follows_the_dose_and_the_attenuation() -> None:
    y = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 300, 300)
    noise = PoissonNoise(photons=2000, attenuation=3)
    variance = noise.add(y, Rng(range(2))).var(dim=(1, 2, 3))
    expected = (2 / 3) ** 2 * torch.tensor([1.0, math.exp(3)]) / 2000  # of -log of the counts: e^p / photons
    torch.testing.assert_close(variance, expected, rtol=0.03, atol=0)
    half = PoissonNoise(photons=1000, attenuation=3).add(y, Rng(range(2))).var(dim=(1, 2, 3))
    torch.testing.assert_close(half, 2 * variance, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ([{"kind": "downsample", "factor": 5}], ["5", "32", "2, 4, 8, 16"]),
        ([{"kind": "downsample", "factor": 32}], ["32"]),
        ([{"kind": "border", "width": 0.01}], ["border", "no pixel"]),
        ([{"kind": "rectangles", "boxes": [[0, 0, 1, 1]]}], ["every pixel"]),
        ([{"kind": "rectangles", "boxes": [[0, 0, 0.01, 0.01]]}], ["no pixel"]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(steps: list[dict[str, Any]], names: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        way(steps).degrade(images(1, 1, SIZE, SIZE), Rng([0]))
    assert all(name in str(error.value) for name in names)


def test_a_given_mask_of_everything_or_nothing_is_refused() -> None:
    some = torch.zeros(2, 1, 8, 8)
    some[:, :, 2:4] = 1
    assert hide(some).forward(torch.ones(2, 1, 8, 8)).sum() == 2 * (64 - 16)
    for bad in (torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)):
        with pytest.raises(ConfigError):
            hide(bad)


def test_a_degradation_that_does_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        DegradationConfig()
