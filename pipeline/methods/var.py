"""`var`: visual autoregressive modelling by next-scale prediction, arXiv:2404.02905.

A tokeniser writes an image in codes r_1 .. r_K of K scales, coarse to fine (`multiscale_vq`, algorithms 1 and 2), and a
transformer learns p(r_1 .. r_K | c) = prod_k p(r_k | r_1 .. r_(k-1), c) (eq. 6), all codes of a scale at once: it
minimises the mean of -log p over all codes, with c the attributes of the image if there are `conditions`. The tokeniser
is trained first: here, in the first `tokeniser_share` of the training, or it is a trained model. Sampling takes a pass
per scale; classifier-free guidance follows the authors' code (`pipeline.nn.scale_transformer`).

Reconstruction: the codes of the `keep` coarsest scales stay; a finer code whose -log p, given the scales before it,
exceeds `threshold` is drawn again, scale by scale. Restorations x_i are averaged with weights
softmax(sharpness / mean |x - x_i|), as in `vqgan`. `inpaint` needs no training: the codes of what is visible are fixed.

With `transformer.order: raster` an ordinary autoregressive model learns the same codes, one at a time, for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.diffusion.guidance import STRONGEST
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.methods.capabilities import Codec, Tokeniser
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.code_prior import nearest_count_most
from pipeline.nn.condition import About, ConditionConfig, Conditions
from pipeline.nn.draw_codes import draw_code, require_drawing
from pipeline.nn.hidden_pixels import check_mask, fill_hidden
from pipeline.nn.residual_quantise import ResidualQuantiser
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.nn.scale_transformer import Chooser, ScaleTransformer, ScaleTransformerConfig
from pipeline.types import Batch


class VarConfig(MethodConfig):
    """Configuration of `var`."""

    name: Literal["var"] = "var"
    tokeniser: ComponentConfig = Field(
        ComponentConfig(method={"name": "multiscale_vq"}), description="the method that gives codes of several scales"
    )
    tokeniser_share: float = Field(
        0.4, gt=0, lt=1, description="share of the training used for the tokeniser, unless it is trained already"
    )
    transformer: ScaleTransformerConfig = Field(ScaleTransformerConfig(), description="network of p(codes)")
    conditions: ConditionConfig | None = Field(
        None, description="attributes that the transformer is conditioned on; null none"
    )
    keep: int = Field(
        2, ge=0, description="coarsest scales whose codes a reconstruction keeps as they are; never the finest one"
    )
    threshold: float = Field(5.0, ge=0, description="nats of -log p above which a finer code is drawn again")
    samples: int = Field(4, ge=1, description="restorations that are averaged")
    sharpness: float = Field(
        1.0, ge=0, description="how much more restorations close to the image count; 0 weights all equally"
    )

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the tokeniser's configuration."""
        return {"tokeniser": self.tokeniser}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> NextScalePrediction:
        tokeniser = components["tokeniser"]
        _quantiser_of(tokeniser)
        require_same_grid("tokeniser", tokeniser, (image_size, channels, spatial_dims))
        return NextScalePrediction(self.name_component("tokeniser", tokeniser), tokeniser)


class NextScalePrediction(Composite):
    """x -> codes, coarse to fine -> p(codes of a scale | coarser ones).

    Args:
        config: the configuration; its `tokeniser` is the configuration of `tokeniser`.
        tokeniser: trained here unless it is a trained model.
    """

    config: VarConfig
    tokeniser: Method

    def __init__(self, config: VarConfig, tokeniser: Method) -> None:
        super().__init__(config, tokeniser.image_size, tokeniser.channels, tokeniser.spatial_dims)
        self.channels_last = tokeniser.channels_last
        first, end = self.hold("tokeniser", tokeniser, config.tokeniser, config.tokeniser_share)
        self.conditional = config.conditions is not None
        self.conditions = Conditions(config.conditions) if config.conditions else None
        width, codes = config.conditions.width if config.conditions else None, self.codes
        self.transformer = ScaleTransformer(self.vocabulary, codes.width, codes.counts, config.transformer, width)
        modules = ("transformer", "conditions") if self.conditional else ("transformer",)
        self.phases = (*first, Phase("prior", modules, config.transformer.lr, after=end))

    @property
    def codes(self) -> ResidualQuantiser:
        """The tokeniser's quantiser, which says what codes add up to."""
        return _quantiser_of(self.tokeniser)

    @property
    def passes(self) -> int:
        """Of the transformer: one per scale (per code with `order: raster`) and restoration."""
        return self.config.samples * self.transformer.turns

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean of -log p over all codes, in nats, and its mean over each scale."""
        tokens = self.to_tokens(batch.images)
        nll = self.nll(tokens, self._condition(batch.about, len(tokens), rng))
        levels = zip(self.codes.scales, nll.split(self.codes.counts, dim=1), strict=True)
        return {"total": nll.mean(), **{f"nll_{edge}": level.mean() for edge, level in levels}}

    def to_tokens(self, x: Tensor) -> Tensor:
        """Return the codes of x, int64 [B, L], coarsest first."""
        return cast(Tokeniser, self.tokeniser).to_tokens(x)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images of codes [B, L]."""
        return cast(Tokeniser, self.tokeniser).from_tokens(tokens)

    @property
    def vocabulary(self) -> int:
        """Number of entries of the tokeniser's codebook."""
        return cast(Tokeniser, self.tokeniser).vocabulary

    def nll(self, tokens: Tensor, c: Tensor | None = None) -> Tensor:
        """Return -log p of each code given those before it, in nats, [B, L] for tokens of that shape."""
        with torch.no_grad():
            contexts, entries = self.codes.contexts(tokens), self.codes.entries_of(tokens)
        logits = self.transformer(contexts, entries, c)
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")

    def sample(
        self, rng: Rng, about: About = (), temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
        guidance: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Return new images float32 [B, C, *spatial], one per row of `rng`, in one pass per scale.

        Args:
            rng: one stream per row.
            about: attributes of each image, if the method has `conditions`; () is unconditional.
            temperature: of the logits, above 0; lower gives likelier images.
            top_k: only this many likeliest codes are drawn; 0 is all.
            top_p: only the likeliest codes that together have this probability are drawn; 1 is all.
            guidance: w of classifier-free guidance, -1 to 100; 0 is the conditional model, and -1 ends unconditional.

        Raises:
            ConfigError: an option out of range, or attributes or guidance that the method cannot use.
        """
        return self.from_tokens(self.draw_tokens(rng, about, temperature, top_k, top_p, guidance))

    def draw_tokens(
        self, rng: Rng, about: About = (), temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
        guidance: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Return the codes of new images, int64 [B, L]; see `sample`."""
        require_drawing(temperature, top_k, top_p)
        self._require(about, guidance)
        u = rng.uniform(sum(self.codes.counts))

        def choose(scale: int, at: slice, f_hat: Tensor, logits: Tensor) -> Tensor:
            return draw_code(logits, u[:, at], temperature, top_k, top_p)

        with self.inference():
            return self._generate(choose, len(rng), about, guidance)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the weighted mean of `samples` restorations; randomness comes from the row's key."""
        with self.inference():
            own = self.to_tokens(self.check(x))
            images = [self.from_tokens(self._restored(own, rng.fork(i), about)) for i in range(self.config.samples)]
            return nearest_count_most(x, torch.stack(images), self.config.sharpness).to(x.dtype)

    def _restored(self, own: Tensor, rng: Rng, about: About) -> Tensor:
        """Return tokens [B, L] with the unlikely ones of the finer scales drawn again."""
        u, first = rng.uniform(own.shape[1]), min(self.config.keep, len(self.codes.scales) - 1)

        def choose(scale: int, at: slice, f_hat: Tensor, logits: Tensor) -> Tensor:
            """Return the image's own codes where they are likely."""
            nll = F.cross_entropy(logits.transpose(1, 2), own[:, at], reduction="none")
            unlikely = (nll > self.config.threshold) & (scale >= first)
            return draw_code(logits, u[:, at]).where(unlikely, own[:, at])

        return self._generate(choose, len(own), about)

    def inpaint(self, x: Tensor, mask: Tensor, rng: Rng, about: About = (), temperature: float = 1.0) -> Tensor:
        """Return x with new pixels where `mask` is True, drawn given the others (section 5.2, zero-shot inpainting).

        A code whose cell is visible for at least half is the one nearest to what is left of the visible part, after the
        coarser codes that were chosen here; the others are drawn. Visible pixels are returned unchanged.

        Args:
            x: [B, C, *spatial]; hidden pixels are not read.
            mask: bool [B, 1, *spatial].
            rng: one stream per row.
            about: as in `sample`.
            temperature: as in `sample`.
        """
        require_drawing(temperature, 0, 1.0)
        mask = check_mask(mask, self.check(x))
        with self.inference():
            codes, u = self.codes, rng.uniform(sum(self.codes.counts))
            f = cast(Codec, self.tokeniser).to_code(fill_hidden(x, mask)).float()
            visible = 1 - codes.down(mask.float(), -1).ceil()

            def choose(scale: int, at: slice, f_hat: Tensor, logits: Tensor) -> Tensor:
                """Return the code of the visible part of a cell, or a drawn one."""
                first = sum(codes.counts[:scale])
                places, share = slice(at.start - first, at.stop - first), codes.down(visible, scale)
                rest = codes.down((f - f_hat) * visible, scale) / share.clamp_min(1e-6)
                nearest = codes.nearest(rest, scale).flatten(1)[:, places]
                return nearest.where(share.flatten(1)[:, places] >= 0.5, draw_code(logits, u[:, at], temperature))

            return self.from_tokens(self._generate(choose, len(x), about)).where(mask, x).to(x.dtype)

    def _require(self, about: About, guidance: float) -> None:
        """Check guidance and attributes (ConfigError)."""
        require_between("guidance", guidance, -1.0, STRONGEST)
        if self.conditions is None and (about or guidance):
            raise ConfigError(
                f"This model has no conditions, so neither attributes nor guidance {guidance:g} have an effect. Leave "
                "them out, or train a model with method.conditions."
            )

    def _generate(self, choose: Chooser, rows: int, about: About, guidance: float = 0.0) -> Tensor:
        self._require(about, guidance)
        nothing = self._condition((), rows) if guidance else None
        return self.transformer.generate(self.codes, rows, choose, self._condition(about, rows), nothing, guidance)

    def _condition(self, about: About, rows: int, rng: Rng | None = None) -> Tensor | None:
        """Return c [B, width] of the attributes, None without `conditions`."""
        return None if self.conditions is None else self.conditions(about, rows, rng)


def _quantiser_of(tokeniser: Method) -> ResidualQuantiser:
    """Return the quantiser of a tokeniser of several scales.

    Raises:
        ConfigError: it is another method.
    """
    quantiser: Any = getattr(tokeniser, "quantiser", None)
    if not isinstance(quantiser, ResidualQuantiser):
        raise ConfigError(
            f"{tokeniser.config.name} cannot be the tokeniser of var: it has no codes of several scales that add up. "
            "Choose multiscale_vq."
        )
    return quantiser
