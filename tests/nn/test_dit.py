"""DiT: zero at the start, blocks that start as the identity, positions per token, conditions that have an effect."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.nn.dit import Block, DiffusionTransformer, positions
from pipeline.nn.patches import fold, unfold


def network(spatial_dims: int = 2, condition: int | None = None) -> DiffusionTransformer:
    torch.manual_seed(0)
    return DiffusionTransformer(8, 2, spatial_dims, 2, 24, 2, 3, condition)


def woken(net: nn.Module) -> nn.Module:
    """Give every parameter a value, so that what starts at zero acts."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.2)
    return net


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_output_is_zero_at_first(spatial_dims: int) -> None:
    x = torch.randn(3, 2, *[8] * spatial_dims)
    assert torch.equal(network(spatial_dims)(x, torch.tensor([0, 5, 999])), torch.zeros_like(x))


def test_a_block_is_the_identity_at_first_and_not_later() -> None:
    block, x, condition = Block(24, 3), torch.randn(2, 16, 24), torch.randn(2, 24)
    assert torch.equal(block(x, condition), x)
    assert not torch.allclose(woken(block)(x, condition), x, atol=0.01)


def test_a_block_equals_a_plain_transformer_layer_when_its_gates_are_open() -> None:
    # alpha = 1 and beta = gamma = 0 is x + attention(norm(x)), then + MLP(norm(x)): torch's own pre-norm layer.
    block = woken(Block(24, 3))
    with torch.no_grad():
        block.modulation.weight.zero_()
        block.modulation.bias.zero_()
        block.modulation.bias.view(6, 24)[[2, 5]] = 1.0
    tanh = lambda x: F.gelu(x, approximate="tanh")  # noqa: E731
    theirs = nn.TransformerEncoderLayer(24, 3, 96, dropout=0.0, activation=tanh, batch_first=True, norm_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(block.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(block.out.state_dict())
        theirs.linear1.load_state_dict(block.mlp[0].state_dict())
        theirs.linear2.load_state_dict(block.mlp[2].state_dict())
        for norm in (theirs.norm1, theirs.norm2):
            norm.eps = 1e-6
    x = torch.randn(2, 16, 24)
    assert_close(block(x, torch.randn(2, 24)), theirs.train()(x), rtol=1e-4, atol=1e-5)


def test_time_condition_and_place_count() -> None:
    net, x = woken(network(condition=5)), torch.randn(1, 2, 8, 8)
    t, c = torch.tensor([10]), torch.randn(1, 5)
    base = net(x, t, c)
    assert not torch.allclose(net(x, t + 500, c), base, atol=1e-3)
    assert not torch.allclose(net(x, t, c + 1), base, atol=1e-3)
    moved = net(x.roll(2, dims=-1), t, c).roll(-2, dims=-1)  # without positions, moving tokens would move the answer
    assert not torch.allclose(moved, base, atol=1e-3)
    net.position.zero_()
    assert_close(net(x.roll(2, dims=-1), t, c).roll(-2, dims=-1), net(x, t, c), rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_each_axis() -> None:
    embedded = positions((2, 3), 8)[0].reshape(2, 3, 8)
    row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]  # row 1 at rates 1 and 1/100
    assert_close(embedded[1, 2, :4], torch.tensor(row))
    assert_close(embedded[0, 2, 4], torch.tensor(2.0).sin())
    assert len(embedded.reshape(-1, 8).unique(dim=0)) == 6


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_patches_are_channels_and_come_back(spatial_dims: int) -> None:
    x = torch.randn(2, 3, *[8] * spatial_dims)
    assert torch.equal(unfold(fold(x, 2), 2), x) and fold(x, 1) is x and unfold(x, 1) is x
    assert fold(x, 2).shape == (2, 3 * 2**spatial_dims, *[4] * spatial_dims)
    if spatial_dims == 2:
        assert torch.equal(fold(x, 2), F.pixel_unshuffle(x, 2))


def test_a_width_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 6"):
        DiffusionTransformer(8, 1, 3, 2, 32, 1, 4)


def test_the_width_that_is_advised_suits_axes_and_heads() -> None:
    with pytest.raises(ConfigError, match=r"width to 108"):
        DiffusionTransformer(16, 1, 3, patch=4, width=100, depth=1, heads=4)
