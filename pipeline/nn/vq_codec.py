"""Convolutional encoder and decoder around a codebook: MONAI's, with the strides of the VQ-VAE, arXiv:1711.00937."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai.networks.nets.vqvae import Decoder, Encoder


def code_encoder(spatial_dims: int, channels: int, out: int, widths: Sequence[int], residual_layers: int) -> Encoder:
    """Return the network [B, channels, *spatial] -> [B, out, *spatial / 2^len(widths)]."""
    from monai.networks.nets.vqvae import Encoder

    strides = [(2, 4, 1, 1)] * len(widths)
    return Encoder(spatial_dims, channels, out, widths, residual_layers, widths, strides, dropout=0.0, act="relu")


def code_decoder(spatial_dims: int, codes: int, channels: int, widths: Sequence[int], residual_layers: int) -> Decoder:
    """Return the network [B, codes, *spatial / 2^len(widths)] -> [B, channels, *spatial]; its last layer is linear."""
    from monai.networks.nets.vqvae import Decoder

    strides = [(2, 4, 1, 1, 0)] * len(widths)
    return Decoder(
        spatial_dims, codes, channels, widths, residual_layers, widths, strides,
        dropout=0.0, act="relu", output_act=None,
    )  # fmt: skip
