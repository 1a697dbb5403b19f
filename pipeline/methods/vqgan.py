"""`vqgan`: a discrete autoencoder with perceptual and adversarial losses, arXiv:2012.09841.

Notation: x_hat = G(q(E(x))) the reconstruction, D a patch discriminator. L_rec = |x - x_hat| + a perceptual distance
(section 3.1), L_VQ adds beta * commitment (and the codebook's own term if it learns by gradient). From `start` on
the generator minimises L_VQ + w lambda L_GAN (eq. 6) with L_GAN = -D(x_hat), the hinge form that the authors use, and
the discriminator the hinge loss (relu(1 - D(x)) + relu(1 + D(x_hat))) / 2. lambda is eq. 7: |grad L_rec| / (|grad
L_GAN| + delta) at the last layer of G. Then, with the rest frozen, a transformer learns p(codes) (section 3.2). The
answer is chosen by `answer`:

- `reconstruction`: x_hat; no transformer is trained.
- `restoration` (with a transformer: Pinaya et al., Medical Image Analysis 2022): codes whose -log p exceeds `threshold`
  are resampled in raster order; restorations x_i are averaged with weights softmax(sharpness / mean |x - x_i|).
- `likelihood`: the map of -log p of each code.

Deviations: encoder and decoder are those of `vq_vae`; features are those of EfficientNet-lite0, not VGG's; one raster
order, where Pinaya et al. average several.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.code_histogram import CodeHistogram, PriorKind
from pipeline.nn.code_prior import nearest_count_most, touched
from pipeline.nn.code_transformer import CodeTransformer, CodeTransformerConfig
from pipeline.nn.hidden_pixels import check_mask, fill_hidden
from pipeline.nn.perceptual import Perceptual, PerceptualConfig
from pipeline.nn.quantise import CodebookConfig, Quantised, VectorQuantiser, perplexity
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_one_of
from pipeline.nn.vq_codec import code_decoder, code_encoder
from pipeline.types import Batch

DELTA = 1e-6  # of eq. 7
LARGEST = 1e4  # of lambda, as in the authors' code


class VqganConfig(RepairingFields, MethodConfig):
    """Configuration of `vqgan`."""

    name: Literal["vqgan"] = "vqgan"
    widths: tuple[int, ...] = Field(
        (32, 64, 64), min_length=1, description="channels per level; each level halves the grid"
    )
    residual_layers: int = Field(1, ge=0, description="residual units per level")
    entries: int = Field(256, ge=2, description="codebook entries K")
    code_width: int = Field(16, ge=1, description="length D of an entry")
    codebook: CodebookConfig = Field(
        CodebookConfig(learn="ema", revive_below=0.03), description="how the codebook learns"
    )
    beta: float = Field(0.25, ge=0, description="weight of the commitment term")
    perceptual_weight: float = Field(
        1.0, ge=0, description="weight of the perceptual term; 0 leaves out the term and its network"
    )
    perceptual: PerceptualConfig = Field(PerceptualConfig(), description="features of the perceptual term")
    adversarial_weight: float = Field(0.8, ge=0, description="w, the factor on lambda")
    discriminator_widths: int = Field(32, ge=1, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(2, ge=1, description="its further layers; a patch is about 2^(layers + 2) pixels")
    start: float = Field(0.3, gt=0, lt=1, description="share of the training after which the discriminator takes part")
    answer: Literal["reconstruction", "restoration", "likelihood"] = Field(
        "reconstruction", description="kind of answer"
    )
    prior: CodeTransformerConfig = Field(
        CodeTransformerConfig(), description="network of p(codes); not used by `reconstruction`"
    )
    prior_after: float = Field(0.6, gt=0, lt=1, description="share of the training after which only p(codes) learns")
    threshold: float = Field(5.0, ge=0, description="nats of -log p above which a code is resampled (restoration)")
    samples: int = Field(4, ge=1, description="restorations that are averaged")
    sharpness: float = Field(
        1.0, ge=0, description="how much more restorations close to the image count; 0 weights all equally"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam before `start`")
    adversarial_lr: float = Field(2e-4, gt=0, description="learning rate of generator and discriminator after it")

    @model_validator(mode="after")
    def _in_order(self) -> VqganConfig:
        if self.answer != "reconstruction" and self.prior_after <= self.start:
            raise ValueError(f"prior_after {self.prior_after} must come after start {self.start}")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        deepest = max(len(self.widths) + 1, self.discriminator_layers + 2)
        features = self.perceptual.backbone.multiple if self.perceptual_weight else 1
        require_size(self.name, image_size, max(2 ** len(self.widths), features), max(2**deepest, features))
        answers = {"likelihood": LikelihoodMapper, "restoration": CodeRestorer, "reconstruction": CodeReconstructor}
        return answers[self.answer](self, image_size, channels, spatial_dims)


class _VectorQuantisedGan(Method):
    """x -> codes -> x_hat, with a patch discriminator; the classes below give the answers."""

    config: VqganConfig
    channels_last = True

    def __init__(self, config: VqganConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        from monai.networks.nets import PatchDiscriminator

        super().__init__(config, image_size, channels, spatial_dims)
        shape = (config.widths, config.residual_layers)
        self.encoder = code_encoder(spatial_dims, config.inputs(channels), config.code_width, *shape)
        self.quantiser = VectorQuantiser(config.entries, config.code_width, config.codebook)
        self.decoder = code_decoder(spatial_dims, config.code_width, channels, *shape)
        self.discriminator = PatchDiscriminator(
            spatial_dims, config.discriminator_widths, channels, num_layers_d=config.discriminator_layers
        )
        # The norm before it has a shift already, and while both sides are within the hinge a bias gets no gradient.
        self.discriminator.final_conv.conv.bias = None
        self.perceptual = Perceptual(config.perceptual, spatial_dims) if config.perceptual_weight else None
        codec, betas, restores = ("encoder", "quantiser", "decoder"), (0.5, 0.9), config.answer != "reconstruction"
        start, until = config.start, config.prior_after if restores else 1.0
        self.phases = (
            Phase("codec", codec, config.lr, until=config.start),
            Phase("generator", codec, config.adversarial_lr, betas, after=start, until=until),
            Phase("discriminator", ("discriminator",), config.adversarial_lr, betas, after=start, until=until),
        )
        if restores:
            grid = [image_size // 2 ** len(config.widths)] * spatial_dims
            self.prior = CodeTransformer(config.entries, grid, config.prior)
            self.histogram = CodeHistogram(config.entries, grid)
            self.phases += (Phase("prior", ("prior",), config.prior.lr, after=config.prior_after),)

    def forward(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Quantised]:
        """Return x_hat [B, C, *spatial] and the quantiser's output; with `rng` (in training) the codebook learns."""
        quantised = self.quantiser(self.encoder(self.config.seen(x)), rng)
        return self.decoder(quantised.codes).float(), quantised

    def judge(self, x: Tensor) -> Tensor:
        """Return D(x), one number per patch, higher = more real."""
        return self.discriminator(x)[-1].float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return L_VQ (codec), eq. 6 (generator), the hinge loss (discriminator) or nats per code (prior).

        Beside the prior's nats are those of independent codes (`histogram`), and exp of its own (`perplexity`).
        """
        if phase == "discriminator":
            return self._discriminator_loss(*self.config.pair(batch, rng))
        if phase == "prior":
            nll = self.prior.nll(codes := self.indices(batch.images)).mean()
            return {"total": nll, "histogram": self.histogram.observe(codes), "perplexity": nll.detach().exp()}
        x, clean = self.config.pair(batch, rng)
        x_hat, quantised = self(x, rng)
        terms, rec = self._codec_terms(clean, x_hat, quantised)
        if phase == "codec":
            return terms
        adversarial = -self.judge(x_hat).mean()
        weight = self.adaptive_weight(rec, adversarial)
        total = terms["total"] + self.config.adversarial_weight * weight * adversarial
        return {**terms, "total": total, "adversarial": adversarial, "adaptive_weight": weight}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return L_VQ, since a changing discriminator's verdicts cannot be compared over time; for the prior,
        its loss.
        """
        if phase == "prior":
            return self.loss(batch, phase, rng)
        x, clean = self.config.pair(batch, rng)
        return self._codec_terms(clean, *self(x))[0]

    def after_step(self, phase: str) -> None:
        """Update the codebook."""
        if phase in ("codec", "generator"):
            self.quantiser.update()

    def adaptive_weight(self, rec: Tensor, adversarial: Tensor) -> Tensor:
        """Return lambda of eq. 7, without gradient; 1 outside training, where nothing is balanced."""
        if not (self.training and torch.is_grad_enabled()):
            return torch.ones((), device=rec.device)
        last = self.decoder.blocks[-1].conv.weight
        of_rec, of_gan = (torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (rec, adversarial))
        return (of_rec / (of_gan + DELTA)).clamp(0, LARGEST).detach()

    @property
    def vocabulary(self) -> int:
        """Number of entries of the codebook."""
        return self.config.entries

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the indices of the codes of x, int64 [B, *grid]."""
        with self.inference():
            return self.indices(self.check(x))

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of tokens [B, *grid]."""
        with self.inference():
            return self.decoder(self.quantiser.embed(tokens)).float()

    @torch.no_grad()
    def indices(self, x: Tensor) -> Tensor:
        """Return the tokens of x for a step of training, which neither leaves its mode nor checks again."""
        return self.quantiser(self.encoder(self.config.seen(x))).indices

    def to_code(self, x: Tensor) -> Tensor:
        """Return z_e [B, D, *grid], before quantisation."""
        return self.encoder(self.config.seen(x))

    def from_code(self, z: Tensor) -> Tensor:
        """Quantise and decode: the quantiser belongs to the decoder (arXiv:2112.10752, section 3.1)."""
        return self.decoder(self.quantiser(z).codes)

    def _codec_terms(self, x: Tensor, x_hat: Tensor, quantised: Quantised) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms of L_VQ, and L_rec."""
        terms = {"reconstruction": F.l1_loss(x_hat, x), "commitment": quantised.commitment_loss}
        rec = terms["reconstruction"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(x, x_hat).mean()
            rec = rec + self.config.perceptual_weight * terms["perceptual"]
        total = rec + self.config.beta * terms["commitment"]
        if not self.quantiser.learns_by_ema:
            terms["codebook"] = quantised.codebook_loss
            total = total + terms["codebook"]
        used = perplexity(quantised.indices, self.config.entries)
        return {"total": total, **terms, "perplexity": used}, rec

    def _discriminator_loss(self, x: Tensor, clean: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            x_hat = self(x)[0]
        real, fake = hinge(self.judge(clean)), hinge(-self.judge(x_hat))
        return {"total": 0.5 * (real + fake), "real": real, "fake": fake}


class CodeReconstructor(_VectorQuantisedGan):
    """Decode the codes unchanged."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x))[0].to(x.dtype)


class _CodeSampler(_VectorQuantisedGan):
    """Draw codes from their prior, and decode; the base of the answers that have a prior."""

    def sample(self, rng: Rng, temperature: float = 1.0, top_k: int = 0, prior: PriorKind = "learned") -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`.

        Args:
            rng: one stream per row.
            temperature: divides the logits; above 0, below 1 for likelier codes.
            top_k: only the most likely codes of a position are drawn; 0 for all.
            prior: learned, or independent: the baseline, codes drawn from the frequencies of their position.

        Raises:
            ConfigError: an option out of range.
        """
        require_one_of("prior", prior, get_args(PriorKind))
        with self.inference():
            drawn = self.prior if prior == "learned" else self.histogram
            return self.from_tokens(drawn.sample(rng, temperature=temperature, top_k=top_k))

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng) -> Tensor:
        """Return x with new pixels where `mask` is True: the codes that they touch are drawn, each given those before
        it in raster order.
        """
        mask = check_mask(mask, self.check(x))
        with self.inference():
            codes = self.to_tokens(fill_hidden(x, mask))
            drawn = self.prior.resample(codes, touched(mask, codes.shape[1:]), rng)
            return self.from_tokens(drawn).where(mask, x).to(x.dtype)


class CodeRestorer(_CodeSampler):
    """Resample unlikely codes, and decode."""

    @property
    def passes(self) -> None:
        """The prior is asked once for each position with an unlikely code."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the weighted mean of `samples` restorations; randomness comes from the row's key."""
        with self.inference():
            codes = self.to_tokens(x)
            unlikely = self.prior.nll(codes) > self.config.threshold
            drawn = [self.prior.resample(codes, unlikely, rng.fork(i)) for i in range(self.config.samples)]
            images = torch.stack([self.from_tokens(each) for each in drawn])
            return nearest_count_most(x, images, self.config.sharpness).to(x.dtype)


class LikelihoodMapper(_CodeSampler):
    """Map how unlikely the codes at each position are."""

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return -log p of the codes, upsampled linearly, in nats, [B, 1, *spatial]; no randomness."""
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        with self.inference():
            nll = self.prior.nll(self.to_tokens(x))[:, None]
            return F.interpolate(nll, size=x.shape[2:], mode=mode)


def hinge(verdict: Tensor) -> Tensor:
    """Return the mean of relu(1 - verdict): patches judged correctly by a margin of 1 or more contribute nothing."""
    return F.relu(1 - verdict).mean()
