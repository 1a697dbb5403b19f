"""`stylegan2`: a GAN whose generator is steered by a style on each level, with adaptive augmentation from the start.

StyleGAN2: Karras et al., arXiv:1912.04958: z -> w by a mapping network, w -> image by modulated convolutions with
noise inputs; non-saturating loss, style mixing, lazy R1 and path length regularisation (sections 2 and 3). ADA:
Karras et al., arXiv:2006.06676, with the changes of DiffAugment (arXiv:2006.10738). Then, with both frozen, an encoder
learns the style of each image as in f-AnoGAN ("izi_f"), so that x_hat = G(E(x)) is the nearest image that the GAN can
make. Deviations: those of `pipeline.nn.style_gan`; a regulariser is added to the loss of every n-th step, not a step
of its own, so that Adam's moments weigh one against the other; R1 is of the augmented image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.adversarial import Judge, r1_penalty, said_fake, said_real
from pipeline.nn.augment import augment, follow_confidence
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.nn.style_gan import Mapping, ResidualJudge, Synthesis, mix_styles, path_lengths
from pipeline.types import Batch

BETAS = (0.0, 0.99)  # of Adam, appendix B
MEAN_STYLE, MEAN_LENGTH, MEAN_SIGN = 0.005, 0.01, 0.1  # shares of a step in the running means


class StyleGan2Config(RepairingFields, MethodConfig):
    """Configuration of `stylegan2`."""

    name: Literal["stylegan2"] = "stylegan2"
    widths: tuple[int, ...] = Field((8, 16, 32, 64), min_length=2, description="channels per level, last repeated")
    latent: int = Field(64, ge=2, description="length of the code z and of the style w")
    mapping: int = Field(4, ge=1, description="layers of the mapping network z -> w")
    mixing: float = Field(0.9, ge=0, le=1, description="share of images in training with two styles")
    r1: float = Field(0.1, ge=0, description="gamma, weight of R1")
    r1_every: int = Field(16, ge=1, description="steps of the discriminator per step with R1")
    path: float = Field(0.3, ge=0, description="weight of the path length regulariser")
    path_every: int = Field(8, ge=1, description="steps of the generator per step with path lengths")
    augmentation: float = Field(0.3, ge=0, le=1, description="p at the start, probability of each augmentation")
    adapt_images: int | None = Field(
        20_000, ge=1, description="images in which p may rise from 0 to 1; null: p is constant"
    )
    confidence: float = Field(0.6, ge=-1, le=1, description="r_t, mean sign of D on real images, that p aims at")
    gan_share: float = Field(
        0.85, gt=0, le=1, description="share of the training before the encoder's turn; 1: no encoder, it only samples"
    )
    kappa: float = Field(1.0, ge=0, description="weight of the residual of the discriminator's features")
    lr: float = Field(4e-3, gt=0, description="learning rate of generator and discriminator")
    encoder_lr: float = Field(5e-4, gt=0, description="learning rate of the encoder")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        answer = StyleInverter if self.gan_share < 1 else StyleGan2
        return answer(self, image_size, channels, spatial_dims)


class Generator(nn.Module):
    """z -> w -> image; `mean` is the running mean of w."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis, latent: int) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self.register_buffer("mean", torch.zeros(latent))
        self.mean: Tensor

    def forward(self, w: Tensor, rng: Rng | None) -> Tensor:
        """Return the image of one style [B, D] on all levels, or of one per level [B, levels, D]."""
        layers = len(self.synthesis.layers)
        return self.synthesis(w[:, None].expand(-1, layers, -1) if w.ndim == 2 else w, rng)

    def styles(self, rng: Rng, mixing: float) -> Tensor:
        """Return the styles of two codes that cross at a random layer in a share of the rows: [B, layers, D]."""
        width, layers = len(self.mean), len(self.synthesis.layers)
        first, second = self.mapping(rng.normal(2, width).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(dim=1)
        if self.training:
            self.mean.lerp_(first.detach().mean(dim=0), MEAN_STYLE)
        crossing = torch.where(rng.uniform() < mixing, rng.integers(1, layers), layers)
        return mix_styles(first, second, crossing, layers)


class StyleGan2(Method):
    """z -> w -> x, and nothing else: it samples."""

    config: StyleGan2Config
    channels_last = True
    steps: Tensor
    probability: Tensor
    sign: Tensor
    length: Tensor

    def __init__(self, config: StyleGan2Config, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes, self.grid = widths(config.widths, self.levels + 1), image_size // 2**self.levels
        synthesis = Synthesis(spatial_dims, config.latent, sizes[::-1], channels, self.grid)
        self.generator = Generator(Mapping(config.latent, config.mapping), synthesis, config.latent)
        self.discriminator = ResidualJudge(spatial_dims, [channels, *sizes], self.grid)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))  # of the discriminator, of the generator
        self.register_buffer("probability", torch.tensor(config.augmentation))
        self.register_buffer("sign", torch.zeros(()))
        self.register_buffer("length", torch.zeros(()))
        self.phases: tuple[Phase, ...] = tuple(
            Phase(name, (name,), config.lr, BETAS, until=config.gan_share) for name in ("discriminator", "generator")
        )

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the discriminator's or the generator's loss, with its regulariser in every n-th step."""
        if phase == "generator":
            return self._generator_terms(rng)
        return self._discriminator_terms(batch.images, rng)

    def _discriminator_terms(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        with torch.no_grad():
            x_tilde = self.generator(self.generator.styles(rng, self.config.mixing), rng)
        seen = [augment(rows, self.probability, rng.fork(name)) for name, rows in (("real", x), ("fake", x_tilde))]
        # in one pass, since half of a small network's time is overhead per operation
        real, fake = self.discriminator(torch.cat(seen)).chunk(2)
        terms = {"real": said_real(real), "generated": said_fake(fake)}
        self._adapt(real.detach())
        total = terms["real"] + terms["generated"]
        if self.config.r1 and self.steps[0] % self.config.r1_every == 0:
            terms["r1"] = r1_penalty(self.discriminator, seen[0]).mean()
            total = total + self.config.r1 / 2 * self.config.r1_every * terms["r1"]
        return {"total": total, **terms, "augmentation": self.probability.clone()}

    @torch.no_grad()
    def _adapt(self, logit: Tensor) -> None:
        """Move the probability of augmentation towards the discriminator's target confidence."""
        if not self.training or self.config.adapt_images is None:
            return
        self.sign.lerp_(logit.sign().mean(), MEAN_SIGN)
        step = len(logit) / self.config.adapt_images
        self.probability.copy_(follow_confidence(self.probability, self.sign, self.config.confidence, step))

    def _generator_terms(self, rng: Rng) -> dict[str, Tensor]:
        styles = self.generator.styles(rng, self.config.mixing)
        x_tilde = self.generator(styles, rng)
        judged = said_real(self.discriminator(augment(x_tilde, self.probability, rng.fork("fake"))))
        if not self.config.path or self.steps[1] % self.config.path_every:
            return {"total": judged, "judged": judged}
        y = rng.normal(*self.image_shape) / math.sqrt(math.prod(self.image_shape[1:]))
        lengths = path_lengths(x_tilde, styles, y)
        if self.training:  # the plain mean at first: a mean that starts at 0 would flatten the first images
            share = max(MEAN_LENGTH, 1 / (1 + int(self.steps[1]) // self.config.path_every))
            self.length.lerp_(lengths.detach().mean(), share)
        penalty = (lengths - self.length).square().mean()
        total = judged + self.config.path * self.config.path_every * penalty
        return {"total": total, "judged": judged, "path": penalty, "length": lengths.mean()}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return nothing: no term of a GAN falls steadily as it improves."""
        return {}

    def after_step(self, phase: str) -> None:
        """Count the steps, for the regularisers."""
        if phase in ("discriminator", "generator"):
            self.steps[phase == "generator"] += 1

    def sample(self, rng: Rng, truncation: float = 1.0) -> Tensor:
        """Return new images, one per row of `rng`.

        Args:
            rng: one stream per image.
            truncation: psi in [0, 1]: w is taken to mean + psi (w - mean). Less than 1 gives cleaner images that differ
                less.

        Raises:
            ConfigError: truncation is outside [0, 1].
        """
        with self.inference():
            return self._picture(self.draw_style(rng, truncation), rng.fork("noise"))

    def draw_style(self, rng: Rng, truncation: float = 1.0) -> Tensor:
        """Return w of each row, float32 [B, D], as `sample` draws it.

        Raises:
            ConfigError: truncation is outside [0, 1].
        """
        require_between("truncation", truncation, 0, 1)
        with self.inference():
            mean = self.generator.mean
            return mean + truncation * (self.generator.mapping(rng.fork("z").normal(self.config.latent)) - mean)

    def _picture(self, w: Tensor, rng: Rng | None) -> Tensor:
        return self.generator(w, rng).clamp(-1, 1)


class StyleInverter(StyleGan2):
    """The same with an encoder x -> w: it restores, encodes and edits."""

    def __init__(self, config: StyleGan2Config, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        sizes = widths(config.widths, self.levels)
        self.encoder = Judge(spatial_dims, [config.inputs(channels), *sizes], self.grid, outputs=config.latent)
        self.phases = (*self.phases, Phase("encoder", ("encoder",), config.encoder_lr, after=config.gan_share))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the loss of the GAN, or the encoder's: residuals of the image and of the discriminator's features."""
        if phase != "encoder":
            return super().loss(batch, phase, rng)
        x, clean = self.config.pair(batch, rng)
        x_hat = self.generator(self.encode(x), None)
        f, f_hat = self.discriminator.features(clean).float(), self.discriminator.features(x_hat).float()
        terms = {"image": (clean - x_hat).square().mean(), "features": (f - f_hat).square().mean()}
        return {"total": terms["image"] + self.config.kappa * terms["features"], **terms}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the encoder's loss in its phase, nothing before."""
        return self.loss(batch, phase, rng) if phase == "encoder" else {}

    def encode(self, x: Tensor) -> Tensor:
        """Return w of each image, float32 [B, D]: the mean of w, and what the encoder adds."""
        return self.generator.mean + self.encoder(self.config.seen(x))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return G(E(x)) without noise; no randomness."""
        with self.inference():
            return self._picture(self.encode(self.check(x)), None).to(x.dtype)

    def embed(self, x: Tensor) -> Tensor:
        """Return w of each image, float32 [B, D]; no randomness."""
        with self.inference():
            return self.encode(self.check(x))

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        """Return G(E(x) + strength * direction) without noise; no randomness."""
        with self.inference():
            return self._picture(self.encode(self.check(x)) + strength[:, None] * direction, None)

    def to_code(self, x: Tensor) -> Tensor:
        """Return E(x) on a grid of 1: [B, D, 1, 1]."""
        return on_grid(self.encode(x), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return G(w) without noise."""
        return self.generator(z.flatten(1), None)
