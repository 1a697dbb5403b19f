"""A ControlNet at the start of its training is the frozen network, exactly, and only what is its own learns."""

from __future__ import annotations

import torch

from pipeline.diffusion.control import Control, run_controlled
from pipeline.diffusion.denoiser import Unet, UnetConfig
from pipeline.nn.edges import find_edges


def make(patch: int) -> tuple[Unet, Control, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    config = UnetConfig(widths=(8, 16), attention=(False, True), patch=patch)
    unet, control = Unet(config, 2, 1, None), Control(config, 2, 1)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # its last layer would be 0
    control.copy_encoder(unet)
    c = (torch.rand(3, 1, 16, 16) > 0.5).float()
    return unet, control, torch.randn(3, 1, 16, 16), torch.tensor([2, 400, 900]), c


def test_at_first_the_controlled_network_is_the_frozen_one() -> None:
    for patch in (1, 2):
        unet, control, x_t, t, c = make(patch)
        with torch.no_grad():
            assert torch.equal(run_controlled(unet, control, x_t, t, c), unet(x_t, t))
    own, theirs = dict(control.network.named_parameters()), dict(unet.network.named_parameters())
    shared = own.keys() & theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in shared)
    assert {name.partition(".")[0] for name in shared} == {"conv_in", "time_embed", "down_blocks", "middle_block"}


def test_zero_convolutions_learn_although_they_begin_at_zero_and_the_frozen_network_does_not() -> None:
    unet, control, x_t, t, c = make(2)
    run_controlled(unet, control, x_t, t, c).square().mean().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    zero = [*control.network.controlnet_down_blocks.parameters(), *control.network.controlnet_mid_block.parameters()]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in zero)
    with torch.no_grad():
        for parameter in (*zero, *control.network.controlnet_cond_embedding.conv_out.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        changed = run_controlled(unet, control, x_t, t, c) - run_controlled(unet, control, x_t, t, 1 - c)
    assert changed.abs().amax(dim=(1, 2, 3)).min() > 1e-3, "another picture gives another image"


def test_edges_are_where_the_smoothed_step_is_steep() -> None:
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1.0
    edges = find_edges(step, 0.3)  # the smoothed step is 0, 1/4, 3/4, 1: its slope is 1/8, 3/8, 3/8, 1/8
    assert torch.equal(edges[0, 0, 0], torch.tensor([0, 0, 0, 1, 1, 0, 0, 0.0]))
    assert torch.equal(find_edges(step.mT, 0.3), edges.mT)
    assert not find_edges(torch.ones(1, 1, 8, 8), 1e-6).any(), "a border is not an edge"
