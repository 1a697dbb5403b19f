"""`vq_vae`: a discrete autoencoder, arXiv:1711.00937. Images are written in codes of normal images; lesions have no
code.

Loss (eq. 3): reconstruction + codebook + beta * commitment, each logged separately. Encoder and decoder are MONAI's.
The codebook learns by its gradient, or by moving averages (appendix A.1), and then has no loss term; dead entries are
revived as set by `codebook.revive_below` (`pipeline.nn.quantise`; MONAI's EMAQuantizer smooths counts and revives
nothing). With `signals`, or one spatial dimension, the same networks have one axis, as codecs of speech do
(arXiv:2005.09409). Deviation: the codebook is initialised with encoder outputs of the first batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.errors import ConfigError
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
    signals: int = Field(
        0,
        ge=0,
        description="rows of the square where it holds a signal (normaliser `signal`): the network then has one axis, "
        "along the rows; 0: images",
    )
    style: bool = Field(
        False,
        description="quantise a code without its mean and scale over the item, and tell the decoder the mean of what "
        "quantisation left out: codes then say what, the mean says who (VQVC+, arXiv:2006.04154, one level)",
    )
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)

    @model_validator(mode="after")
    def _signals_are_read_as_they_are(self) -> Self:
        if self.signals and (self.mirrored or self.painting is not None):
            raise ValueError("a signal has no other side and no painted lesions: leave out mirrored and painting")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VectorQuantisedAutoencoder:
        length = image_size**2 // self.signals if self.signals else image_size
        require_size(self.name, length, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        if self.signals and (image_size**2 % self.signals or (channels, spatial_dims) != (1, 2)):
            raise ConfigError(
                f"vq_vae cannot read {self.signals} signals from {channels} x {image_size}^{spatial_dims} values: they "
                "are rows of one square, whose number of values they must divide. Set method.signals to its rows."
            )
        return VectorQuantisedAutoencoder(self, image_size, channels, spatial_dims)


class VectorQuantisedAutoencoder(Method):
    """x -> z_e -> nearest codebook entries -> x_hat."""

    config: VqVaeConfig
    channels_last = True

    def __init__(self, config: VqVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        shape = (config.widths, config.residual_layers)
        axes, rows = (1, config.signals) if config.signals else (spatial_dims, channels)
        self.encoder = code_encoder(axes, config.inputs(rows), config.code_width, *shape)
        self.quantiser = VectorQuantiser(config.entries, config.code_width, config.codebook)
        self.decoder = code_decoder(axes, config.code_width, rows, *shape)
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Quantised]:
        """Return x_hat [B, C, *spatial] and the quantiser's output; with `rng` (in training) the codebook learns."""
        z_e = self._encode(x)
        quantised = self.quantiser(self._content(z_e), rng)
        return self._decode(self._styled(quantised.codes, z_e, quantised.codes)), quantised

    def _encode(self, x: Tensor) -> Tensor:
        """Return z_e of images, or of signals that were laid out on a square."""
        rows = self.config.signals
        return self.encoder(x.reshape(len(x), rows, -1) if rows else self.config.seen(x))

    def _content(self, z_e: Tensor) -> Tensor:
        """Return what is quantised: z_e, or with `style` z_e normalised over the item (instance normalisation)."""
        if not self.config.style:
            return z_e
        axes = tuple(range(2, z_e.ndim))
        return (z_e - z_e.mean(axes, keepdim=True)) / (z_e.std(axes, keepdim=True, correction=0) + 1e-4)

    def _styled(self, codes: Tensor, z_e: Tensor, own: Tensor) -> Tensor:
        """Return codes plus the mean over the item of what quantising z_e to its `own` codes left out, with `style`."""
        if not self.config.style:
            return codes
        return codes + (z_e - own.detach()).mean(tuple(range(2, z_e.ndim)), keepdim=True)

    def _decode(self, codes: Tensor) -> Tensor:
        x_hat = self.decoder(codes)
        return x_hat.reshape(len(x_hat), *self.image_shape) if self.config.signals else x_hat

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
        return self._encode(x)

    def from_code(self, z: Tensor) -> Tensor:
        """Quantise and decode: the quantiser belongs to the decoder (arXiv:2112.10752, section 3.1)."""
        codes = self.quantiser(self._content(z)).codes
        return self._decode(self._styled(codes, z, codes))

    @property
    def vocabulary(self) -> int:
        """Number of entries of the codebook."""
        return self.config.entries

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the indices of the codes of x, int64 [B, *grid]."""
        with self.inference():
            return self.quantiser(self._content(self._encode(self.check(x)))).indices

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of tokens [B, *grid], of no particular style."""
        with self.inference():
            return self._decode(self.quantiser.embed(tokens)).float()

    def restyle(self, x: Tensor, like: Tensor) -> Tensor:
        """Return what x says as `like` would say it: the codes of x, decoded with the style of `like`, row by row."""
        with self.inference():
            z_e, other = self._encode(self.check(x)), self._encode(self.check(like))
            codes = self.quantiser(self._content(z_e)).codes
            own = self.quantiser(self._content(other)).codes
            return self._decode(self._styled(codes, other, own)).float()

    def after_step(self, phase: str) -> None:
        """Update the codebook's moving averages and revive dead entries."""
        self.quantiser.update()

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x))[0].to(x.dtype)
