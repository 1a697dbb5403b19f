"""Residual maps: golden numbers, an independent SSIM, masks, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from pipeline.detection.residual import ResidualConfig, counted_body, residual
from pipeline.errors import ConfigError


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    x, y = (torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32)) for _ in range(2))
    return x, y, torch.ones(shape[0], 1, *shape[2:], dtype=torch.bool)


def one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 4, 4), value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # x = 0.5, x_hat = -0.25: difference 0.75
        (ResidualConfig(kind="l1"), 0.75),
        (ResidualConfig(kind="l2"), 0.5625),
        (ResidualConfig(kind="signed", direction="positive"), 0.75),
        (ResidualConfig(kind="signed", direction="negative"), -0.75),
        # Constants have no variance: SSIM = (2 m n + c1) / (m^2 + n^2 + c1) with c1 = (0.01 x 2)^2 = 0.0004,
        # so 1 - (-0.25 + 0.0004) / (0.25 + 0.0625 + 0.0004) = 1 + 0.2496 / 0.3129
        (ResidualConfig(kind="ssim"), 1 + 0.2496 / 0.3129),
    ],
)
def test_golden_values_of_a_constant_pair(config: ResidualConfig, expected: float) -> None:
    body = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(residual(one(0.5), one(-0.25), body, config), one(expected))


@pytest.mark.parametrize("kind", ["l1", "l2", "signed"])
def test_a_low_pass_lets_only_low_frequencies_differ(kind: str) -> None:
    """A checkerboard averages out; a constant difference stays as it is."""
    x, body = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1)[None, None]
    config = ResidualConfig(kind=kind, low_pass=1 / 8)
    middle = (..., slice(6, 10), slice(6, 10))
    assert residual(x, x - board, body, config)[middle].abs().max() < 1e-3
    plain = config.model_copy(update={"low_pass": 0.0})
    torch.testing.assert_close(residual(x, x - 0.5, body, config), residual(x, x - 0.5, body, plain))


def independent_ssim(x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False), border replicated."""

    def blur(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, sigma, mode="nearest", truncate=3.5)

    ux, uy = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
    c1, c2 = 0.02**2, 0.06**2
    return ((2 * ux * uy + c1) * (2 * vxy + c2)) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (1, 1, 16, 16, 16)])
def test_ssim_is_the_papers_formula(shape: tuple[int, ...]) -> None:
    x, y, body = pair(*shape)
    maps = residual(x, y, body, ResidualConfig(kind="ssim"))
    for row in range(shape[0]):
        sigma = 3 / 64 * shape[-1]
        expected = 1 - independent_ssim(x[row, 0].double().numpy(), y[row, 0].double().numpy(), sigma)
        torch.testing.assert_close(maps[row, 0].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


def test_the_window_scales_with_the_image() -> None:
    x, y, body = pair(1, 1, 32, 32)
    small = residual(x, y, body, ResidualConfig(kind="ssim")).mean()
    big = [t.repeat_interleave(2, -1).repeat_interleave(2, -2) for t in (x, y, body)]
    assert abs(residual(*big, ResidualConfig(kind="ssim")).mean() - small) < 0.03


def test_identical_images_have_no_residual() -> None:
    x, _, body = pair(1, 1, 16, 16)
    for kind in ("l1", "l2", "ssim", "signed"):
        torch.testing.assert_close(residual(x, x, body, ResidualConfig(kind=kind)), torch.zeros_like(x))


def test_signed_directions_are_each_others_negative_and_never_clamped() -> None:
    x, y, body = pair(2, 1, 16, 16)
    up = residual(x, y, body, ResidualConfig(kind="signed", direction="positive"))
    down = residual(x, y, body, ResidualConfig(kind="signed", direction="negative"))
    assert torch.equal(up, -down)
    assert (up < 0).any()
    assert (up > 0).any()


def test_outside_the_eroded_body_is_zero() -> None:
    x, y, _ = pair(1, 1, 16, 16)
    body = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    body[..., 4:12, 4:12] = True
    config = ResidualConfig(kind="l1", erode=1)
    maps = residual(x, y, body, config)
    counted = counted_body(body, config)
    assert counted.sum() == 36
    assert (maps[~counted] == 0).all()
    torch.testing.assert_close(maps[counted], (x - y).abs()[counted])


def test_channels_are_averaged() -> None:
    x = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])[None]
    maps = residual(x, torch.zeros_like(x), torch.ones(1, 1, 4, 4, dtype=torch.bool), ResidualConfig(kind="l1"))
    torch.testing.assert_close(maps, one(0.5))


def test_median_removes_a_single_pixel_and_smoothing_spreads_it() -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[..., 8, 8] = 1.0
    body = torch.ones_like(x, dtype=torch.bool)
    assert (residual(x, torch.zeros_like(x), body, ResidualConfig(kind="l1", median=3)) == 0).all()
    smooth = residual(x, torch.zeros_like(x), body, ResidualConfig(kind="l1", smooth_fraction=1 / 16))
    assert 0 < smooth[0, 0, 8, 9] < smooth[0, 0, 8, 8] < 1


@pytest.mark.parametrize("kind", ["l1", "l2", "ssim", "signed"])
def test_a_row_does_not_see_its_neighbours(kind: str) -> None:
    x, y, body = pair(9, 1, 32, 32)
    config = ResidualConfig(kind=kind, median=5, smooth_fraction=1 / 32)
    whole = residual(x, y, body, config)
    for row in (0, 8):
        alone = residual(x[row : row + 1], y[row : row + 1], body[row : row + 1], config)
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, y, body = pair(2, 1, 8, 8)
    with pytest.raises(ConfigError, match=r"\[1, 1, 8, 8\]"):
        residual(x, y[:1], body, ResidualConfig())
    with pytest.raises(ConfigError, match=r"\[2, 8, 8\]"):
        residual(x, y, body[:, 0], ResidualConfig())


def test_an_even_median_is_refused() -> None:
    with pytest.raises(ValidationError, match="odd"):
        ResidualConfig(median=4)


def test_the_perceptual_residual_sees_structure_that_lies_in_the_lesion() -> None:
    config = ResidualConfig(kind="perceptual", perceptual={"backbone": {"depths": (1, 2)}})
    x, _, body = pair(2, 1, 32, 32)
    x_hat = x.clone()
    x_hat[1, :, 8:20, 8:20] = 0.0
    body[:, :, :, 28:] = False
    maps = residual(x, x_hat, body, config)
    assert maps.shape == (2, 1, 32, 32) and maps[0].abs().max() == 0 and maps[..., 28:].abs().max() == 0
    assert maps[1, 0, 8:20, 8:20].mean() > 5 * maps[1, 0, 24:, :28].mean() >= 0
    torch.testing.assert_close(residual(x[1:], x_hat[1:], body[1:], config)[0], maps[1])
