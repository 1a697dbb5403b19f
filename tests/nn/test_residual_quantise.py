"""Residual quantisation on several scales: exact with a full codebook, and no scale starves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.nn.quantise import CodebookConfig
from pipeline.nn.residual_quantise import ResidualQuantiser, doublings
from pipeline.nn.rng import Rng

EMA = CodebookConfig(learn="ema", revive_below=0.03)


def quantiser(entries: int = 8, width: int = 3, grid: int = 4, dims: int = 2, refine: float = 0.5) -> ResidualQuantiser:
    torch.manual_seed(0)
    return ResidualQuantiser(dims, grid, entries, width, EMA, refine)


def features(rows: int = 2, width: int = 3, grid: int = 4, dims: int = 2) -> Tensor:
    return Rng(range(rows)).normal(width, *[grid] * dims)


@pytest.mark.parametrize(("grid", "edges"), [(8, (1, 2, 4, 8)), (12, (1, 3, 6, 12)), (1, (1,))])
def test_the_scales_double_up_to_the_grid(grid: int, edges: tuple[int, ...]) -> None:
    assert doublings(grid) == edges


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("refine", [0.0, 0.5])
def test_with_an_entry_for_every_value_it_reconstructs_exactly(dims: int, refine: float) -> None:
    """phi starts as the identity; entries every 1/32 leave an error of at most 1/64 at every place."""
    codes = quantiser(513, 1, 4, dims, refine)
    codes.quantiser.codebook.copy_(torch.linspace(-8, 8, 513)[:, None])
    f = features(3, 1, 4, dims)
    error = (codes.eval()(f).codes - f).abs()
    assert 1e-3 < error.max() <= 1 / 64 + 1e-5


def test_the_last_scale_leaves_the_distance_to_the_nearest_entry() -> None:
    codes, f = quantiser(refine=0.0).eval(), features()
    before = codes.embed(torch.cat([one.flatten(1) for one in codes(f).indices], dim=1))
    last = codes.enlarged(codes(f).indices[-1], 2)
    rest = (f - (before - last)).movedim(1, -1)
    nearest = (rest[..., None, :] - codes.quantiser.codebook).norm(dim=-1).amin(dim=-1)
    assert_close((f - codes(f).codes).norm(dim=1), nearest)


def test_tokens_are_the_features_again() -> None:
    codes, f = quantiser().eval(), features()
    with torch.no_grad():
        for conv in codes.phi:
            conv.weight.add_(0.1 * torch.randn_like(conv.weight))
    refined = codes(f)
    tokens = torch.cat([one.flatten(1) for one in refined.indices], dim=1)
    assert tokens.shape == (2, 1 + 4 + 16) and [one.shape[1] for one in codes.split(tokens)] == [1, 2, 4]
    assert_close(codes.embed(tokens), refined.codes)
    contexts = codes.contexts(tokens)
    assert contexts.shape == (2, 21, 3)
    assert_close(contexts[:, :1], codes.context(torch.zeros_like(f), 0))
    first = codes.enlarged(refined.indices[0], 0)
    assert_close(contexts[:, 1:5], codes.context(first, 1))
    assert_close(contexts[:, 5:], codes.context(first + codes.enlarged(refined.indices[1], 1), 2))


def test_the_two_losses_move_different_sides_and_images_pass_straight_through() -> None:
    codes, f = quantiser().train(), features().requires_grad_()
    refined = codes(f)
    (moves_f,) = torch.autograd.grad(refined.commitment_loss, f, retain_graph=True)
    assert moves_f.any()
    weights = [conv.weight for conv in codes.phi]
    assert all(g.any() for g in torch.autograd.grad(refined.codebook_loss, weights, retain_graph=True))
    assert torch.autograd.grad(refined.codebook_loss, f, allow_unused=True, retain_graph=True) == (None,)
    (straight,) = torch.autograd.grad(refined.codes.sum(), f)
    assert_close(straight, torch.ones_like(f))


def test_every_scale_counts_equally_for_the_codebook() -> None:
    codes, f = quantiser(entries=16).train(), features(8)
    indices = codes(f, Rng(range(8))).indices
    share = sum(torch.bincount(one.flatten(), minlength=16) / one.numel() for one in indices) / 3
    assert_close(codes.quantiser.noted_usage, 16 * share)


def learnt(f: Tensor, entries: int) -> ResidualQuantiser:
    """Return a quantiser after 200 steps on the same features."""
    codes = quantiser(entries, f.shape[1], f.shape[2]).train()
    for step in range(200):
        codes(f, Rng([100 * step + row for row in range(len(f))]))
        codes.update()
    return codes.eval()


def test_scales_of_little_spread_use_the_codebook_too() -> None:
    """Images whose means differ by a hundredth of what their places do, around a mean far from 0: VAR's collapse."""
    f = (
        5
        + 0.01 * Rng(range(64)).normal(2, 1, 1)
        + features(64, 2, 4)
        - features(64, 2, 4).mean(dim=(2, 3), keepdim=True)
    )
    codes = learnt(f, 32)
    assert_close(codes.mean[0], f.mean(dim=(0, 2, 3)), atol=1e-3, rtol=0)
    assert_close(codes.variance[0].sqrt(), torch.tensor(0.01), atol=2e-3, rtol=0)
    used = [len(one.unique()) for one in codes(f).indices]
    assert min(used) >= 16, used


def test_features_that_are_all_the_same_are_given_back() -> None:
    f = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(4, 2, 4, 4)
    assert_close(learnt(f, 8)(f).codes, f, atol=1e-3, rtol=0)
