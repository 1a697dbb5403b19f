"""The small U-Net's two additions: patches as channels, and the mirror image beside the image."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.nn.unet import SmallUNet, UNetFields

NARROW = (8, 8, 8, 8, 8, 8)


class Seen(nn.Module):
    """Keeps its input, and answers with its first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        self.shown = x
        return x[:, : self.channels]


def watched(spatial_dims: int, patch: int, mirrored: bool) -> SmallUNet:
    made = UNetFields(widths=NARROW, patch=patch, mirrored=mirrored).unet(spatial_dims, 1, 1)
    made.network = Seen(patch**spatial_dims)
    return made


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("mirrored", [False, True])
def test_patches_go_in_and_pixels_come_out_where_they_were(spatial_dims: int, patch: int, mirrored: bool) -> None:
    x = torch.randn(2, 1, *[8] * spatial_dims)
    network = watched(spatial_dims, patch, mirrored)
    assert torch.equal(network(x), x)  # the first channels are the image's own, not the mirror image's
    received = network.network.shown
    assert received.shape == (2, (1 + mirrored) * patch**spatial_dims, *[8 // patch] * spatial_dims)


def test_the_mirror_image_is_turned_left_to_right() -> None:
    x = torch.randn(2, 1, 8, 8)
    network = watched(2, 1, True)
    network(x)
    assert torch.equal(network.network.shown[:, 1:], x.flip(-1))


def test_patches_of_two_pixels_cost_a_quarter() -> None:
    def operations(patch: int) -> int:
        network = UNetFields(patch=patch).unet(2, 1, 1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, 64, 64))
        return counter.get_total_flops()

    # The convolutions cost exactly a quarter; the first and last have more channels.
    assert 0.25 < operations(2) / operations(1) < 0.32


def test_widths_that_group_norm_cannot_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiples of 8"):
        UNetFields(widths=(8, 8, 8, 8, 12, 8))
    assert UNetFields(patch=2).multiple == 32
