"""`vq_vae`: a discrete autoencoder, arXiv:1711.00937. Normal images are spelled with a codebook; a lesion has no word.

Loss (eq. 3): reconstruction + codebook + beta * commitment, each logged apart. Encoder and decoder are MONAI's; the
codebook learns by its gradient, as in eq. 3 (MONAI's learns by moving averages, the paper's appendix A.1, and so has no
codebook term). Deviation: the codebook is placed on encoder outputs of the first batch.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from monai.networks.nets.vqvae import Decoder, Encoder
from pydantic import Field
from torch import Tensor

from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.quantise import Quantised, VectorQuantiser, perplexity
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class VqVaeConfig(MethodConfig):
    """Configuration of `vq_vae`."""

    name: Literal["vq_vae"] = "vq_vae"
    widths: tuple[int, ...] = Field(
        (32, 64, 64), min_length=1, description="channels per level; each level halves the grid"
    )
    residual_layers: int = Field(1, ge=0, description="residual units per level")
    entries: int = Field(256, ge=2, description="codebook entries K")
    code_width: int = Field(16, ge=1, description="length D of an entry")
    beta: float = Field(0.25, ge=0, description="weight of the commitment term")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VectorQuantisedAutoencoder:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return VectorQuantisedAutoencoder(self, image_size, channels, spatial_dims)


class VectorQuantisedAutoencoder(Method):
    """x -> z_e -> nearest codebook entries -> x_hat."""

    channels_last = True

    def __init__(self, config: VqVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels, shared = len(config.widths), (config.widths, config.residual_layers, config.widths)
        self.encoder = Encoder(
            spatial_dims, channels, config.code_width, *shared, [(2, 4, 1, 1)] * levels, dropout=0.0, act="relu"
        )
        self.quantiser = VectorQuantiser(config.entries, config.code_width)
        self.decoder = Decoder(
            spatial_dims, config.code_width, channels, *shared, [(2, 4, 1, 1, 0)] * levels,
            dropout=0.0, act="relu", output_act=None,
        )  # fmt: skip
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> tuple[Tensor, Quantised]:
        """Return x_hat [B, C, *spatial] and what the quantiser says."""
        quantised = self.quantiser(self.encoder(x))
        return self.decoder(quantised.codes), quantised

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 3 and its terms; perplexity (entries in use) is logged, not differentiated."""
        if self.training and not self.quantiser.placed:
            picks = rng.uniform(self.config.entries // len(rng) + 1).flatten()[: self.config.entries]
            self.quantiser.place(self.encoder(batch.images), picks)
        x_hat, quantised = self(batch.images)
        terms = {
            "reconstruction": F.mse_loss(x_hat.float(), batch.images),
            "codebook": quantised.codebook_loss,
            "commitment": quantised.commitment_loss,
        }
        total = terms["reconstruction"] + terms["codebook"] + self.config.beta * terms["commitment"]
        return {"total": total, **terms, "perplexity": perplexity(quantised.indices, self.config.entries)}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x))[0].to(x.dtype)
