"""U-Net whose every skip connection passes a code, so that no level can copy its features through unchanged.

QBAE (MedIAnomaly's successor, 2026) puts a noisy code on every skip; a ladder VAE (Sonderby et al., arXiv:1602.02282)
draws a Gaussian there, a hierarchical VQ-VAE (arXiv:1906.00446) an entry of a codebook. This module holds the network
around the codes; `pipeline.methods.ladder_vae` and `ladder_vq` hold the codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.nn.patches import fold, unfold
from pipeline.nn.unet import SmallUNet, UNetFields

LEVELS = 5


class LadderUNet(SmallUNet):
    """The levels of a small U-Net as separate steps: features, codes of them, and the decoder.

    Args:
        spatial_dims, in_channels, out_channels, config: as in `SmallUNet`.
        encoded: channels of each level's code before it is drawn or quantised, finest level first.
        decoded: channels of each level's code after that.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, config: UNetFields,
        encoded: Sequence[int], decoded: Sequence[int],
    ) -> None:  # fmt: skip
        from monai.networks.blocks import Convolution

        super().__init__(spatial_dims, in_channels, out_channels, config)

        def pointwise(inside: int, outside: int) -> nn.Module:
            return Convolution(spatial_dims, inside, outside, kernel_size=1, conv_only=True)

        levels = config.widths[:LEVELS]
        self.to_code = nn.ModuleList(pointwise(width, code) for width, code in zip(levels, encoded, strict=True))
        self.from_code = nn.ModuleList(pointwise(code, width) for width, code in zip(levels, decoded, strict=True))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return what each level says of x [B, C, *spatial], finest first: float32 [B, encoded, *grid]."""
        seen = torch.cat([x, x.flip(-1)], dim=1) if self.mirrored else x
        net = self.network
        features = [net.conv_0(fold(seen, self.patch))]
        for down in (net.down_1, net.down_2, net.down_3, net.down_4):
            features.append(down(features[-1]))
        return [layer(feature).float() for layer, feature in zip(self.to_code, features, strict=True)]

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Return the output [B, out, *spatial] of the codes of all levels, finest first."""
        net = self.network
        *skips, bottom = [layer(code) for layer, code in zip(self.from_code, codes, strict=True)]
        for up, skip in zip((net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1), reversed(skips), strict=True):
            bottom = up(bottom, skip)
        return unfold(net.final_conv(bottom), self.patch)
