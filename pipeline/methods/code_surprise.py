"""`code_surprise`: how unlikely the codes of an image are, by how often normal images use them at that place.

A tokeniser writes an image in codes k, on one grid or on several. After its training, the codes of all training images
are counted, at each level l and in each part r of the image (a grid of `parts` along each edge):

    p_l(k | r) = (n_l(k, r) + strength q_l(k)) / (n_l(r) + strength),  q_l(k) = (n_l(k) + 1) / (n_l + K)

so that a part with few images falls back on the whole image's usage q. -log p is the surprise of a code in nats. The
map is the mean over the levels of the surprise, each z-scored within the bodies of held-out normals, enlarged linearly.
It costs one pass of the encoder, and needs neither a decoder nor a learned prior. With a learned prior, see `vq_vae2`
and `vqgan` (`answer: likelihood`). The residual of the same tokeniser is another detector; an ensemble joins the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import LevelTokeniser, Tokeniser
from pipeline.methods.component import ComponentConfig
from pipeline.methods.composite import Composite, require_same_grid
from pipeline.nn.code_histogram import smoothed
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class CodeSurpriseConfig(MethodConfig):
    """Configuration of `code_surprise`."""

    name: Literal["code_surprise"] = "code_surprise"
    tokeniser: ComponentConfig = Field(ComponentConfig(), description="the method that gives the codes")
    parts: int = Field(8, ge=1, le=64, description="parts along each edge in which codes are counted; 1 is the image")
    strength: float = Field(32.0, gt=0, description="number of codes that the whole image's usage counts for in a part")

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the tokeniser's configuration."""
        return {"tokeniser": self.tokeniser}

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> CodeSurprise:
        tokeniser = components["tokeniser"]
        require_same_grid("tokeniser", tokeniser, (image_size, channels, spatial_dims))
        return CodeSurprise(self.name_component("tokeniser", tokeniser), tokeniser)


class CodeSurprise(Composite):
    """x -> codes -> -log p of each, by its place.

    Args:
        config: the configuration; its `tokeniser` is the configuration of `tokeniser`.
        tokeniser: trained here unless it is a trained model.
    """

    config: CodeSurpriseConfig
    tokeniser: Method
    normal_mean: Tensor
    normal_std: Tensor

    def __init__(self, config: CodeSurpriseConfig, tokeniser: Method) -> None:
        super().__init__(config, tokeniser.image_size, tokeniser.channels, tokeniser.spatial_dims)
        self.phases, _ = self.hold("tokeniser", tokeniser, config.tokeniser, 1.0)
        self.channels_last = tokeniser.channels_last
        self.levels = len(self.codes(torch.zeros(1, *self.image_shape)))
        entries, parts = cast(Tokeniser, tokeniser).vocabulary, config.parts**self.spatial_dims
        for level in range(self.levels):
            self.register_buffer(f"counts_{level}", torch.zeros(parts, entries))
        self.register_buffer("normal_mean", torch.zeros(self.levels))
        self.register_buffer("normal_std", torch.ones(self.levels))

    def codes(self, x: Tensor) -> list[Tensor]:
        """Return the codes of each level, int64 [B, *grid].

        Raises:
            ConfigError: the method has no codes on a grid.
        """
        if isinstance(self.tokeniser, LevelTokeniser):
            return self.tokeniser.to_levels(x)
        if isinstance(self.tokeniser, Tokeniser):
            tokens = self.tokeniser.to_tokens(x)
            if tokens.ndim == self.spatial_dims + 1:
                return [tokens]
        raise ConfigError(
            f"{self.tokeniser.config.name} has no codes on a grid to count. Choose vq_vae, vqgan, ladder_vq or "
            "multiscale_vq."
        )

    def finish(self, batches: Iterable[Batch]) -> None:
        """Count the codes of the training images."""
        for level in range(self.levels):
            self._counts(level).zero_()
        for batch in batches:
            for level, codes in enumerate(self.codes(batch.images.to(self.normal_mean.device))):
                counts = self._counts(level)
                places = self._parts(codes).expand_as(codes) * counts.shape[1] + codes
                counts += torch.bincount(places.flatten(), minlength=counts.numel()).reshape(counts.shape)

    def _counts(self, level: int) -> Tensor:
        return cast(Tensor, getattr(self, f"counts_{level}"))

    def _parts(self, codes: Tensor) -> Tensor:
        """Return the part of each place of a grid: int64 [*grid]."""
        number = torch.zeros([1] * self.spatial_dims, dtype=torch.int64, device=codes.device)
        for axis, size in enumerate(codes.shape[1:]):
            line = torch.arange(size, device=codes.device) * self.config.parts // size
            shape = [size if axis == other else 1 for other in range(self.spatial_dims)]
            number = number * self.config.parts + line.reshape(shape)
        return number

    def surprise(self, x: Tensor) -> Iterator[Tensor]:
        """Yield -log p of each level's codes in nats, float32 [B, *grid]."""
        for level, codes in enumerate(self.codes(x)):
            counts = self._counts(level)
            yield -smoothed(counts, self.config.strength)[self._parts(codes).expand_as(codes), codes].log()

    def standardise(self, batches: Iterable[Batch]) -> None:
        """Fit mean and standard deviation of each level's surprise over the bodies of held-out normals."""
        sums, count = torch.zeros(2, self.levels, dtype=torch.float64), 0
        for batch in batches:
            maps = torch.stack(list(self._enlarged(batch.images.to(self.normal_mean.device)))).cpu().double()
            inside = maps * batch.body
            sums += torch.stack([inside.flatten(1).sum(dim=1), (inside * maps).flatten(1).sum(dim=1)])
            count += int(batch.body.sum())
        if count:
            mean, square = sums / count
            self.normal_mean.copy_(mean)
            self.normal_std.copy_((square - mean.square()).clamp_min(1e-12).sqrt())

    def _enlarged(self, x: Tensor) -> Iterator[Tensor]:
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        for surprise in self.surprise(x):
            yield F.interpolate(surprise[:, None], size=x.shape[2:], mode=mode)

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the mean z-score of the surprise over the levels, [B, 1, *spatial]; no randomness."""
        with self.inference():
            maps = torch.stack(list(self._enlarged(self.check(x))))
            shape = (-1, *[1] * x.ndim)
            return ((maps - self.normal_mean.reshape(shape)) / self.normal_std.reshape(shape)).mean(dim=0)
