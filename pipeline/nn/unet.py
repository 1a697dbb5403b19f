"""The small U-Net of the methods that remove or find lesions: MONAI's BasicUNet with group norm."""

from __future__ import annotations

from typing import Annotated

from monai.networks.nets import BasicUNet
from pydantic import AfterValidator

GROUPS = 8


def _groups(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % GROUPS or width <= 0 for width in widths):
        raise ValueError(f"widths {widths} must be multiples of {GROUPS} (group norm)")
    return widths


UNetWidths = Annotated[tuple[int, int, int, int, int, int], AfterValidator(_groups)]


def small_unet(spatial_dims: int, in_channels: int, out_channels: int, widths: UNetWidths) -> BasicUNet:
    """Return a U-Net of five levels for grids that are multiples of 16 and at least 32 pixels.

    Group norm, so that no output depends on its neighbours in the batch. `widths` are the features of the levels and of
    the last upsampling; (16, 16, 32, 64, 128, 16) makes about 0.5 M parameters in two dimensions.
    """
    return BasicUNet(
        spatial_dims,
        in_channels,
        out_channels,
        widths,
        norm=("group", {"num_groups": GROUPS}),
        act=("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
    )
