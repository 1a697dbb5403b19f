"""Two-level codec of the VQ-VAE-2, arXiv:1906.00446: a coarse grid of codes, and a finer one conditioned on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.nn.quantise import CodebookConfig, Quantised, VectorQuantiser
from pipeline.nn.rng import Rng
from pipeline.nn.vq_codec import code_decoder, code_encoder


class Coded(NamedTuple):
    """An image as codes: indices int64 [B, *grid] of the top (coarse) and the bottom (fine) level."""

    top: Tensor
    bottom: Tensor


class HierarchicalCodec(nn.Module):
    """x -> e_top, e_bottom -> x_hat (algorithm 1 of the paper; the top level sees the bottom's features).

    Args:
        spatial_dims, channels: of the images.
        widths: channels per level down to the bottom grid; the top grid is half of that.
        residual_layers: residual units per level.
        entries, code_width: of both codebooks.
        codebook: how the codebooks learn.
        seen: channels of what is encoded; those of the images by default.
    """

    def __init__(
        self, spatial_dims: int, channels: int, widths: Sequence[int], residual_layers: int, entries: int,
        code_width: int, codebook: CodebookConfig, seen: int | None = None,
    ) -> None:  # fmt: skip
        from monai.networks.blocks import Convolution

        super().__init__()
        width = widths[-1]
        self.encode_bottom = code_encoder(spatial_dims, seen or channels, width, widths, residual_layers)
        self.encode_top = code_encoder(spatial_dims, width, code_width, (width,), residual_layers)
        self.quantise_top = VectorQuantiser(entries, code_width, codebook)
        self.condition_bottom = code_decoder(spatial_dims, code_width, width, (width,), residual_layers)
        self.join = Convolution(spatial_dims, 2 * width, code_width, kernel_size=1, conv_only=True)
        self.quantise_bottom = VectorQuantiser(entries, code_width, codebook)
        self.enlarge_top = code_decoder(spatial_dims, code_width, code_width, (width,), 0)
        self.decoder = code_decoder(spatial_dims, 2 * code_width, channels, widths, residual_layers)

    def encode(self, x: Tensor, rng: Rng | None = None) -> tuple[Quantised, Quantised]:
        """Return both levels quantised, top first; with `rng` (in training) the codebooks learn."""
        features = self.encode_bottom(x)
        top = self.quantise_top(self.encode_top(features), None if rng is None else rng.fork("top"))
        return top, self.quantise_bottom(self._joined(features, top), None if rng is None else rng.fork("bottom"))

    def _joined(self, features: Tensor, top: Quantised) -> Tensor:
        """Return the bottom level before quantisation, conditioned on the top level's codes."""
        return self.join(torch.cat([features, self.condition_bottom(top.codes).to(features.dtype)], dim=1))

    def features(self, x: Tensor) -> Tensor:
        """Return both levels before quantisation, [B, 2 code_width, *bottom grid]: the upsampled top level
        comes first.
        """
        features = self.encode_bottom(x)
        top = self.encode_top(features)
        bottom = self._joined(features, self.quantise_top(top))
        return torch.cat([F.interpolate(top, scale_factor=2.0).to(bottom.dtype), bottom], dim=1)

    def of_features(self, z: Tensor) -> Tensor:
        """Return x_hat of the output of `features`; the top level is downsampled to its own grid by the mean
        of 2 x 2.
        """
        top, bottom = z.chunk(2, dim=1)
        top = F.interpolate(top, size=[edge // 2 for edge in top.shape[2:]], mode="area")
        return self.decode(self.quantise_top(top).codes, self.quantise_bottom(bottom).codes)

    def decode(self, e_top: Tensor, e_bottom: Tensor) -> Tensor:
        """Return x_hat [B, C, *spatial]."""
        return self.decoder(torch.cat([self.enlarge_top(e_top).to(e_bottom.dtype), e_bottom], dim=1)).float()

    def codes(self, x: Tensor) -> Coded:
        """Return the codes of images."""
        top, bottom = self.encode(x)
        return Coded(top.indices, bottom.indices)

    def image(self, codes: Coded) -> Tensor:
        """Return the decoded image of codes."""
        return self.decode(self.quantise_top.embed(codes.top), self.quantise_bottom.embed(codes.bottom))

    def update(self) -> None:
        """Update both codebooks after the optimiser's step."""
        self.quantise_top.update()
        self.quantise_bottom.update()
