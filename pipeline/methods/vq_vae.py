"""`vq_vae`: a discrete autoencoder, arXiv:1711.00937. Images are written in codes of normal images; lesions have no
code.

Loss (eq. 3): reconstruction + codebook + beta * commitment, each logged separately. Encoder and decoder are MONAI's.
The codebook learns by its gradient, or by moving averages (appendix A.1), and then has no loss term; dead entries are
revived as set by `codebook.revive_below` (`pipeline.nn.quantise`; MONAI's EMAQuantizer smooths counts and revives
nothing). Deviation: the codebook is initialised with encoder outputs of the first batch.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.quantise import CodebookConfig, Quantised, VectorQuantiser, perplexity
from pipeline.nn.rng import Rng
from pipeline.nn.vq_codec import code_decoder, code_encoder
from pipeline.types import Batch


class VqVaeConfig(RepairingFields, MethodConfig):
    """Configuration of `vq_vae`."""

    name: Literal["vq_vae"] = "vq_vae"
    widths: tuple[int, ...] = Field(
        (32, 64, 64), min_length=1, description="channels per level; each level halves the grid"
    )
    residual_layers: int = Field(1, ge=0, description="residual units per level")
    entries: int = Field(256, ge=2, description="codebook entries K")
    code_width: int = Field(16, ge=1, description="length D of an entry")
    codebook: CodebookConfig = Field(CodebookConfig(), description="how the codebook learns")
    beta: float = Field(0.25, ge=0, description="weight of the commitment term")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VectorQuantisedAutoencoder:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return VectorQuantisedAutoencoder(self, image_size, channels, spatial_dims)


class VectorQuantisedAutoencoder(Method):
    """x -> z_e -> nearest codebook entries -> x_hat."""

    config: VqVaeConfig
    channels_last = True

    def __init__(self, config: VqVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        shape = (config.widths, config.residual_layers)
        self.encoder = code_encoder(spatial_dims, config.inputs(channels), config.code_width, *shape)
        self.quantiser = VectorQuantiser(config.entries, config.code_width, config.codebook)
        self.decoder = code_decoder(spatial_dims, config.code_width, channels, *shape)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Quantised]:
        """Return x_hat [B, C, *spatial] and the quantiser's output; with `rng` (in training) the codebook learns."""
        quantised = self.quantiser(self.encoder(self.config.seen(x)), rng)
        return self.decoder(quantised.codes), quantised

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 3 and its terms; perplexity (entries in use) is logged, not differentiated."""
        x, clean = self.config.pair(batch, rng)
        x_hat, quantised = self(x, rng)
        terms = {
            "reconstruction": F.mse_loss(x_hat.float(), clean),
            "commitment": quantised.commitment_loss,
        }
        total = terms["reconstruction"] + self.config.beta * terms["commitment"]
        if not self.quantiser.learns_by_ema:
            terms["codebook"] = quantised.codebook_loss
            total = total + terms["codebook"]
        return {"total": total, **terms, "perplexity": perplexity(quantised.indices, self.config.entries)}

    def to_code(self, x: Tensor) -> Tensor:
        """Return z_e [B, D, *grid], before quantisation."""
        return self.encoder(self.config.seen(x))

    def from_code(self, z: Tensor) -> Tensor:
        """Quantise and decode: the quantiser belongs to the decoder (arXiv:2112.10752, section 3.1)."""
        return self.decoder(self.quantiser(z).codes)

    @property
    def vocabulary(self) -> int:
        """Number of entries of the codebook."""
        return self.config.entries

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the indices of the codes of x, int64 [B, *grid]."""
        with self.inference():
            return self.quantiser(self.encoder(self.config.seen(self.check(x)))).indices

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of tokens [B, *grid]."""
        with self.inference():
            return self.decoder(self.quantiser.embed(tokens)).float()

    def after_step(self, phase: str) -> None:
        """Update the codebook's moving averages and revive dead entries."""
        self.quantiser.update()

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x))[0].to(x.dtype)
