"""Small U-Net for methods that remove or find lesions: MONAI's BasicUNet with group norm.

It has two additions. Patches can be folded into channels before the network and unfolded after it (arXiv:2301.11093,
section 3), which for an edge of 2 costs a quarter. And the mirrored image can be added as further channels: most organs
are nearly symmetric and lesions are not, and a convolution cannot see the other side at the same height by itself.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.nn.patches import fold, unfold

GROUPS = 8
HALVINGS = 4


def _groups(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % GROUPS or width <= 0 for width in widths):
        raise ValueError(f"widths {widths} must be multiples of {GROUPS} (group norm)")
    return widths


UNetWidths = Annotated[tuple[int, int, int, int, int, int], AfterValidator(_groups)]


class UNetFields(Config):
    """Fields of a method's configuration that describe its U-Net."""

    widths: UNetWidths = Field(
        (16, 16, 32, 64, 128, 16), description="features of the five levels and of the U-Net's last upsampling"
    )
    patch: int = Field(
        1, ge=1, le=8, description="edge of the patches that are folded into channels; 2 costs a quarter"
    )
    mirrored: bool = Field(False, description="add the mirrored image (last axis) as further channels")

    @property
    def multiple(self) -> int:
        """The image size must be a multiple of this, and at least twice as large."""
        return self.patch * 2**HALVINGS

    def unet(self, spatial_dims: int, in_channels: int, out_channels: int) -> SmallUNet:
        """Return the network; see `SmallUNet`."""
        return SmallUNet(spatial_dims, in_channels, out_channels, self)


class SmallUNet(nn.Module):
    """A U-Net of five levels, [B, in, *spatial] -> [B, out, *spatial], for grids that are multiples of `multiple`.

    Group norm makes outputs independent of neighbours in the batch. Widths (16, 16, 32, 64, 128, 16) give about
    0.5 M parameters in two dimensions.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, config: UNetFields) -> None:
        from monai.networks.nets import BasicUNet

        super().__init__()
        self.patch, self.mirrored = config.patch, config.mirrored
        pixels = config.patch**spatial_dims
        self.network = BasicUNet(
            spatial_dims,
            in_channels * (2 if config.mirrored else 1) * pixels,
            out_channels * pixels,
            config.widths,
            norm=("group", {"num_groups": GROUPS}),
            act=("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output on the grid of x."""
        seen = torch.cat([x, x.flip(-1)], dim=1) if self.mirrored else x
        return unfold(self.network(fold(seen, self.patch)), self.patch)
