"""`vq_vae2`: a two-level discrete autoencoder, arXiv:1906.00446, with a prior over its codes.

The codec learns first: reconstruction + beta * commitment of both levels (eq. 2; with `codebook.learn: gradient` also
their codebook terms). Then, with the codec frozen, the priors p(top) and p(bottom | top) learn by their negative
log-likelihood. The answer is chosen by `answer`:

- `likelihood`: the map of -log p of each code, with both levels upsampled and added: lesions have unlikely codes.
- `restoration` (Marimont and Tarroni, arXiv:2012.06765): codes whose -log p exceeds `threshold` are resampled from the
  prior, top level first; several restorations x_i are averaged with weights softmax(sharpness / mean |x - x_i|).
- `reconstruction`: the decoded codes unchanged; no prior is trained.

Deviations: the prior is a small PixelCNN with one attention (`pipeline.nn.pixel_snail`); the restorations are averaged
as images, where the paper averages their residuals.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.code_histogram import CodeHistogram, PriorKind
from pipeline.nn.code_prior import nearest_count_most, touched
from pipeline.nn.hidden_pixels import check_mask, fill_hidden
from pipeline.nn.hierarchical_codec import Coded, HierarchicalCodec
from pipeline.nn.pixel_snail import PixelSnail, PixelSnailConfig
from pipeline.nn.quantise import CodebookConfig, perplexity
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_one_of
from pipeline.types import Batch

LEVELS = ("top", "bottom")


class VqVae2Config(RepairingFields, MethodConfig):
    """Configuration of `vq_vae2`."""

    name: Literal["vq_vae2"] = "vq_vae2"
    answer: Literal["likelihood", "restoration", "reconstruction"] = Field("restoration", description="kind of answer")
    widths: tuple[int, ...] = Field((32, 64), min_length=1, description="channels per level down to the bottom codes")
    residual_layers: int = Field(1, ge=0, description="residual units per level")
    entries: int = Field(128, ge=2, description="codebook entries K of each level")
    code_width: int = Field(16, ge=1, description="length D of an entry")
    codebook: CodebookConfig = Field(
        CodebookConfig(learn="ema", revive_below=0.03), description="how the codebooks learn"
    )
    beta: float = Field(0.25, ge=0, description="weight of the commitment terms")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")
    prior: PixelSnailConfig = Field(PixelSnailConfig(), description="networks of p(top) and p(bottom | top)")
    prior_after: float = Field(0.5, gt=0, lt=1, description="share of the training after which the priors learn")
    threshold: float = Field(5.0, ge=0, description="nats of -log p above which a code is resampled (restoration)")
    samples: int = Field(4, ge=1, description="restorations that are averaged")
    sharpness: float = Field(
        1.0, ge=0, description="how much more restorations close to the image count; 0 weights all equally"
    )

    @model_validator(mode="after")
    def _fits(self) -> VqVae2Config:
        if self.prior.width % self.prior.heads:
            raise ValueError(f"prior.width {self.prior.width} must be a multiple of prior.heads {self.prior.heads}")
        return self

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        multiple = 2 ** (len(self.widths) + 1)
        require_size(self.name, image_size, multiple, 2 * multiple)
        answers = {"likelihood": LikelihoodMapper, "restoration": CodeRestorer, "reconstruction": CodeReconstructor}
        return answers[self.answer](self, image_size, channels, spatial_dims)


class _TwoLevels(Method):
    """The codec and its priors; the classes below give the answers."""

    config: VqVae2Config
    channels_last = True

    def __init__(self, config: VqVae2Config, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.codec = HierarchicalCodec(
            spatial_dims, channels, config.widths, config.residual_layers, config.entries, config.code_width,
            config.codebook, config.inputs(channels),
        )  # fmt: skip
        if config.answer == "reconstruction":
            self.phases = (Phase("codec", ("codec",), config.lr),)
            return
        fine, coarse = ([image_size // 2 ** (len(config.widths) + i)] * spatial_dims for i in (0, 1))
        self.prior = nn.ModuleDict(
            {
                "top": PixelSnail(config.entries, coarse, config.prior),
                "bottom": PixelSnail(config.entries, fine, config.prior, config.entries),
            }
        )
        self.histogram = nn.ModuleDict(
            {"top": CodeHistogram(config.entries, coarse), "bottom": CodeHistogram(config.entries, fine)}
        )
        self.phases = (
            Phase("codec", ("codec",), config.lr, until=config.prior_after),
            Phase("prior", ("prior",), config.prior.lr, after=config.prior_after),
        )

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 2 of the codec, or the priors' mean nats per code, with named terms.

        Beside the priors' nats are those of independent codes (`histogram`), and exp of their own (`perplexity`).
        """
        return (
            self._codec_loss(*self.config.pair(batch, rng), rng) if phase == "codec" else self._prior_loss(batch.images)
        )

    def _codec_loss(self, x: Tensor, clean: Tensor, rng: Rng) -> dict[str, Tensor]:
        levels = self.codec.encode(self.config.seen(x), rng)
        reconstruction = F.mse_loss(self.codec.decode(*(level.codes for level in levels)), clean)
        terms = {
            "reconstruction": reconstruction,
            "commitment": cast(Tensor, sum(level.commitment_loss for level in levels)),
        }
        total = reconstruction + self.config.beta * terms["commitment"]
        if self.config.codebook.learn == "gradient":
            terms["codebook"] = cast(Tensor, sum(level.codebook_loss for level in levels))
            total = total + terms["codebook"]
        top, bottom = (perplexity(level.indices, self.config.entries) for level in levels)
        return {"total": total, **terms, "perplexity_top": top, "perplexity_bottom": bottom}

    def _prior_loss(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            codes = self.codec.codes(self.config.seen(x))
        nll = dict(zip(LEVELS, (each.mean() for each in self.nll(codes)), strict=True))
        terms: dict[str, Tensor] = {"total": nll["top"] + nll["bottom"]}
        for level in LEVELS:
            independent = cast(CodeHistogram, self.histogram[level]).observe(getattr(codes, level))
            terms |= {f"nll_{level}": nll[level], f"histogram_{level}": independent}
            terms[f"perplexity_{level}"] = nll[level].detach().exp()
        return terms

    def after_step(self, phase: str) -> None:
        """Update the codebooks."""
        if phase == "codec":
            self.codec.update()

    def to_code(self, x: Tensor) -> Tensor:
        """Return both levels before quantisation, [B, 2 D, *fine grid], the coarse one upsampled to the fine grid."""
        return self.codec.features(self.config.seen(x))

    def from_code(self, z: Tensor) -> Tensor:
        """Quantise and decode: the quantisers belong to the decoder (arXiv:2112.10752, section 3.1)."""
        return self.codec.of_features(z)

    @property
    def vocabulary(self) -> int:
        """Number of entries of each level's codebook."""
        return self.config.entries

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the indices of both levels' codes, int64 [B, L]: the top level row by row, then the bottom one."""
        with self.inference():
            codes = self.codec.codes(self.config.seen(self.check(x)))
        return torch.cat([codes.top.flatten(1), codes.bottom.flatten(1)], dim=1)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of tokens [B, L]."""
        fine = self.image_size // 2 ** len(self.config.widths)
        top, bottom = ([edge] * self.spatial_dims for edge in (fine // 2, fine))
        coarse, rest = tokens.split([math.prod(top), math.prod(bottom)], dim=1)
        with self.inference():
            return self.codec.image(Coded(coarse.reshape(-1, *top), rest.reshape(-1, *bottom)))

    def nll(self, codes: Coded) -> tuple[Tensor, Tensor]:
        """Return -log p of each code in nats, [B, *grid] of the top and of the bottom level."""
        return cast(Any, self.prior["top"]).nll(codes.top), cast(Any, self.prior["bottom"]).nll(codes.bottom, codes.top)


class CodeReconstructor(_TwoLevels):
    """Decode the codes unchanged."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self.codec.image(self.codec.codes(self.config.seen(self.check(x)))).to(x.dtype)


class _CodeSampler(_TwoLevels):
    """Draw codes from their prior, and decode; the base of the answers that have a prior."""

    def sample(self, rng: Rng, temperature: float = 1.0, top_k: int = 0, prior: PriorKind = "learned") -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: the top level is drawn first.

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
            drawn: Any = self.prior if prior == "learned" else self.histogram
            top = drawn["top"].sample(rng.fork("top"), None, temperature, top_k)
            return self.codec.image(Coded(top, drawn["bottom"].sample(rng.fork("bottom"), top, temperature, top_k)))

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng) -> Tensor:
        """Return x with new pixels where `mask` is True: the codes that they touch are drawn, the top level first, each
        given those before it in raster order and, at the bottom, the top level.
        """
        mask = check_mask(mask, self.check(x))
        prior: Any = self.prior
        with self.inference():
            codes = self.codec.codes(self.config.seen(fill_hidden(x, mask)))
            hidden = Coded(*(touched(mask, level.shape[1:]) for level in (codes.top, codes.bottom)))
            top = prior["top"].resample(codes.top, hidden.top, rng.fork("top"))
            bottom = prior["bottom"].resample(codes.bottom, hidden.bottom, rng.fork("bottom"), top)
            return self.codec.image(Coded(top, bottom)).where(mask, x).to(x.dtype)


class LikelihoodMapper(_CodeSampler):
    """Map how unlikely the codes at each position are."""

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return -log p of the codes, upsampled linearly and added, in nats, [B, 1, *spatial]; no randomness."""
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        with self.inference():
            levels = self.nll(self.codec.codes(self.config.seen(self.check(x))))
            return cast(Tensor, sum(F.interpolate(nll[:, None], size=x.shape[2:], mode=mode) for nll in levels))


class CodeRestorer(_CodeSampler):
    """Resample unlikely codes, and decode."""

    @property
    def passes(self) -> None:
        """The prior is asked once for each position with an unlikely code."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the weighted mean of `samples` restorations; randomness comes from the row's key."""
        with self.inference():
            codes = self.codec.codes(self.config.seen(self.check(x)))
            images = [self.codec.image(self.resample_unlikely(codes, rng.fork(i))) for i in range(self.config.samples)]
            return nearest_count_most(x, torch.stack(images), self.config.sharpness).to(x.dtype)

    def resample_unlikely(self, codes: Coded, rng: Rng) -> Coded:
        """Return the codes with those above `threshold` in -log p resampled: first the top level, then the bottom given
        it.
        """
        prior: Any
        prior, limit = self.prior, self.config.threshold
        top = prior["top"].resample(codes.top, prior["top"].nll(codes.top) > limit, rng.fork("top"))
        unlikely = prior["bottom"].nll(codes.bottom, top) > limit
        return Coded(top, prior["bottom"].resample(codes.bottom, unlikely, rng.fork("bottom"), top))
