"""`multiscale_vq`: the tokeniser of VAR (arXiv:2404.02905, section 3.2 and algorithms 1 and 2), useful alone.

An image is written in codes of one codebook on grids of 1, 2, 4 and so on up to the last one; each scale quantises
what the coarser ones leave (`pipeline.nn.residual_quantise`). Notation: f = E(x) the features, f_hat what the codes of
all scales add up to, x_hat = D(f_hat). Loss (eq. 5): |x - x_hat|^2 + |f - f_hat|^2 + a perceptual distance. The
second term is a codebook term, which moves the codebook and the convolutions of the scales and is averaged over these,
and beta * commitment, which moves E.

Deviations: encoder and decoder are those of `vq_vae`; features are those of EfficientNet-lite0, not VGG's; there is no
discriminator; each scale has a convolution of its own, where the paper shares four; and every scale counts equally for
the codebook, since the coarse ones collapse otherwise. Training logs the entries in use per scale (`perplexity_1` is
the 1 x 1 scale).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.perceptual import Perceptual, PerceptualConfig
from pipeline.nn.quantise import CodebookConfig, perplexity
from pipeline.nn.residual_quantise import Refined, ResidualQuantiser
from pipeline.nn.rng import Rng
from pipeline.nn.vq_codec import code_decoder, code_encoder
from pipeline.types import Batch

ENLARGED = 10.0  # factor on the encoder's last layer, to begin with


class MultiscaleVqConfig(RepairingFields, MethodConfig):
    """Configuration of `multiscale_vq`."""

    name: Literal["multiscale_vq"] = "multiscale_vq"
    widths: tuple[int, ...] = Field(
        (32, 64, 64), min_length=1, description="channels per level; each level halves the grid"
    )
    residual_layers: int = Field(1, ge=0, description="residual units per level")
    entries: int = Field(256, ge=2, description="codebook entries K, of all scales together")
    code_width: int = Field(16, ge=1, description="length D of an entry")
    codebook: CodebookConfig = Field(
        CodebookConfig(learn="ema", revive_below=0.03), description="how the codebook learns"
    )
    refine: float = Field(
        0.5, ge=0, le=1, description="share of the convolution that repairs enlarged codes; 0 leaves it out"
    )
    beta: float = Field(0.25, ge=0, description="weight of the commitment term")
    perceptual_weight: float = Field(
        1.0, ge=0, description="weight of the perceptual term; 0 leaves out the term and its network"
    )
    perceptual: PerceptualConfig = Field(PerceptualConfig(), description="features of the perceptual term")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> MultiscaleTokeniser:
        features = self.perceptual.backbone.multiple if self.perceptual_weight else 1
        multiple = max(2 ** len(self.widths), features)
        require_size(self.name, image_size, multiple, max(2 ** (len(self.widths) + 1), features))
        return MultiscaleTokeniser(self, image_size, channels, spatial_dims)


class MultiscaleTokeniser(Method):
    """x -> f -> codes of several scales -> f_hat -> x_hat."""

    config: MultiscaleVqConfig
    channels_last = True

    def __init__(self, config: MultiscaleVqConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        shape = (config.widths, config.residual_layers)
        self.encoder = code_encoder(spatial_dims, config.inputs(channels), config.code_width, *shape)
        enlarge_last(self.encoder)
        self.quantiser = ResidualQuantiser(
            spatial_dims, image_size // 2 ** len(config.widths), config.entries, config.code_width, config.codebook,
            config.refine,
        )  # fmt: skip
        self.decoder = code_decoder(spatial_dims, config.code_width, channels, *shape)
        self.perceptual = Perceptual(config.perceptual, spatial_dims) if config.perceptual_weight else None
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Refined]:
        """Return x_hat [B, C, *spatial] and the quantiser's output; with `rng` (in training) the codebook learns."""
        refined = self.quantiser(self.to_code(x), rng)
        return self.decoder(refined.codes).float(), refined

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 5 and its terms; the entries in use of each scale are logged."""
        x, clean = self.config.pair(batch, rng)
        x_hat, refined = self(x, rng)
        terms = {
            "reconstruction": F.mse_loss(x_hat, clean),
            "codebook": refined.codebook_loss,
            "commitment": refined.commitment_loss,
        }
        total = terms["reconstruction"] + terms["codebook"] + self.config.beta * terms["commitment"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(clean, x_hat).mean()
            total = total + self.config.perceptual_weight * terms["perceptual"]
        edges = self.quantiser.scales
        used = {f"perplexity_{e}": perplexity(i, self.vocabulary) for e, i in zip(edges, refined.indices, strict=True)}
        return {"total": total, **terms, **used}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the terms with a total of what x_hat is judged by: the others grow with the spread of f, and say
        nothing about the image.
        """
        terms = self.loss(batch, phase, rng)
        judged = terms["reconstruction"] + self.config.perceptual_weight * terms.get("perceptual", 0.0)
        return {**terms, "total": judged}

    def after_step(self, phase: str) -> None:
        """Update the codebook."""
        self.quantiser.update()

    def to_code(self, x: Tensor) -> Tensor:
        """Return f [B, D, *grid], before quantisation."""
        return self.encoder(self.config.seen(x))

    def from_code(self, z: Tensor) -> Tensor:
        """Quantise and decode: the quantiser belongs to the decoder (arXiv:2112.10752, section 3.1)."""
        return self.decoder(self.quantiser(z).codes)

    @property
    def vocabulary(self) -> int:
        """Number of entries of the codebook."""
        return self.config.entries

    def to_levels(self, x: Tensor) -> list[Tensor]:
        """Return the indices of each scale's codes, finest first, int64 [B, *grid]."""
        with self.inference():
            return self.quantiser(self.to_code(self.check(x))).indices[::-1]

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the indices of all codes of x, int64 [B, L], coarsest scale first."""
        return torch.cat([one.flatten(1) for one in reversed(self.to_levels(x))], dim=1)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of tokens [B, L]."""
        with self.inference():
            return self.decoder(self.quantiser.embed(tokens)).float()

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x))[0].to(x.dtype)


def enlarge_last(encoder: nn.Module) -> None:
    """Multiply the weights of a fresh encoder's last layer, so that its features have a spread of about 1.

    Without it every place has nearly the same features at first, and thousands of images pass before the codes depend
    on the image. (Dividing the features by their spread would move them faster than the codebook can follow.)
    """
    last = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
    with torch.no_grad():
        last.weight.mul_(ENLARGED)
