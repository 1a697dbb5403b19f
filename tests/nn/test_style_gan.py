"""Networks of StyleGAN2: modulation against a loop, unit variances, and path lengths in closed form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from pipeline.nn.rng import Rng
from pipeline.nn.style_gan import (
    GAIN,
    SLOPE,
    EqualConv,
    EqualLinear,
    Mapping,
    ModulatedConv,
    ResidualJudge,
    StyledLayer,
    Synthesis,
    enlarge,
    mix_styles,
    path_lengths,
)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulation_equals_the_loop_over_rows_with_weights_of_their_own(spatial_dims: int, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(spatial_dims, 5, 4, 3, 6, demodulate)
    x, w = torch.randn(3, 5, *[6] * spatial_dims), torch.randn(3, 6)
    convolve = F.conv2d if spatial_dims == 2 else F.conv3d
    for row, y in enumerate(layer(x, w)):
        s = layer.to_scales(w[row])
        weight = layer.weight * layer.scale * s.reshape(1, -1, *[1] * spatial_dims)
        if demodulate:
            weight = weight / (weight.square().flatten(1).sum(dim=1) + 1e-8).sqrt().reshape(-1, 1, *[1] * spatial_dims)
        y = y / GAIN if demodulate else y
        assert_close(y, convolve(x[row][None], weight, padding=1)[0], rtol=1e-4, atol=1e-5)


def test_demodulated_outputs_have_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(1)
    x, w = torch.randn(2, 32, 66, 66), torch.stack([3 * torch.ones(8), torch.randn(8)])
    demodulated, raw = (ModulatedConv(2, 32, 16, 3, 8, demodulate)(x, w) for demodulate in (True, False))
    inner = demodulated[..., 1:-1, 1:-1].flatten(2).var(dim=2)
    inner = inner / GAIN**2  # of the activation that follows
    assert_close(inner, torch.ones_like(inner), rtol=0, atol=0.08)  # 4096 dependent pixels
    assert (raw[..., 1:-1, 1:-1].flatten(2).var(dim=2) - 1).abs().max() > 0.5


def test_equalised_layers_and_the_activation_keep_the_variance() -> None:
    torch.manual_seed(2)
    x = torch.randn(4000, 64)
    for layer in (EqualLinear(64, 32), EqualLinear(64, 32, rate=0.01)):
        assert layer(x).var().item() == pytest.approx(1, abs=0.1)
    y = EqualConv(2, 16, 16)(torch.randn(8, 16, 32, 32))[..., 1:-1, 1:-1]
    # E y^2 = 2, and of leaky y (1 + 0.04) / 2 times that
    assert F.leaky_relu(y, SLOPE).square().mean().item() == pytest.approx(1.04, abs=0.1)


def test_a_hundredth_of_the_learning_rate_moves_outputs_a_hundredth_as_far() -> None:
    moved = []
    for rate in (1.0, 0.01):
        torch.manual_seed(3)
        layer, x = EqualLinear(16, 1, rate=rate), torch.randn(1, 16)
        before = layer(x).item()
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
        layer(x).sum().backward()
        optimiser.step()
        moved.append(layer(x).item() - before)
    assert moved[1] == pytest.approx(0.01 * moved[0], rel=1e-2)


def test_a_code_s_length_does_not_matter_to_its_style() -> None:
    torch.manual_seed(4)
    mapping, z = Mapping(8, 3), Rng([1, 2]).normal(8)
    assert_close(mapping(z), mapping(5 * z))
    assert not torch.allclose(mapping(z), mapping(-z))


def test_styles_cross_at_the_given_layer() -> None:
    first, second = torch.zeros(3, 2), torch.ones(3, 2)
    styles = mix_styles(first, second, torch.tensor([1, 3, 5]), 5)
    assert styles[..., 0].tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_path_lengths_of_a_linear_generator_and_their_gradient_in_closed_form() -> None:
    # G(w) = A w: J^T y = A^T y, and d |A^T y| / dA = y (A^T y)^T / |A^T y|.
    matrix, y = Rng([1]).normal(6, 3)[0].requires_grad_(), Rng([2, 3]).normal(6)
    w = Rng([4, 5]).normal(3).requires_grad_()
    lengths = path_lengths(w @ matrix.T, w, y)
    back = (y @ matrix).detach()
    assert_close(lengths, back.norm(dim=1))
    by_hand = torch.einsum("bi,bj->ij", y, back / back.norm(dim=1, keepdim=True))
    assert_close(torch.autograd.grad(lengths.sum(), matrix)[0], by_hand)


def test_path_lengths_of_a_style_per_layer_are_averaged_over_the_layers() -> None:
    # G = 3 w_1 + 4 w_2 and y = 1: squared lengths 9 and 16, and their mean is 12.5.
    styles = torch.ones(1, 2, 1, requires_grad=True)
    images = 3 * styles[:, 0] + 4 * styles[:, 1]
    assert_close(path_lengths(images, styles, torch.ones(1, 1)).square(), torch.tensor([12.5]))


def test_enlargement_is_zeros_between_pixels_and_the_paper_s_filter() -> None:
    x = Rng([1]).normal(1, 8, 8)
    spread = torch.zeros(1, 1, 16, 16)
    spread[..., ::2, ::2] = x
    line = torch.tensor([1.0, 3, 3, 1]) / 4
    filtered = F.conv2d(F.pad(spread, (2, 1, 2, 1)), torch.outer(line, line)[None, None])
    assert_close(enlarge(x)[..., 2:-2, 2:-2], filtered[..., 2:-2, 2:-2])


def test_noise_has_the_learned_strength_and_none_without_a_generator() -> None:
    torch.manual_seed(5)
    layer = StyledLayer(2, 4, 4, 3, up=True)
    x, w = torch.zeros(2, 4, 16, 16), torch.randn(2, 3)
    assert torch.equal(layer(x, w, Rng([1, 2])), layer(x, w, None))
    layer.strength.data.fill_(0.5)
    noisy = layer(x, w, Rng([1, 2]))
    assert_close(noisy, F.leaky_relu(0.5 * Rng([1, 2]).normal(1, 32, 32), SLOPE).expand_as(noisy))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_images_of_styles_are_judged(spatial_dims: int) -> None:
    torch.manual_seed(6)
    synthesis = Synthesis(spatial_dims, 3, [8, 8, 4], 1, 4)
    judge = ResidualJudge(spatial_dims, [1, 4, 8, 8], 4)
    x = synthesis(torch.randn(2, len(synthesis.layers), 3), Rng([1, 2]))
    assert x.shape == (2, 1, *[16] * spatial_dims) and judge(x).shape == (2,)
    assert_close(judge(x)[:1], judge(x[:1]), rtol=1e-4, atol=1e-5)
