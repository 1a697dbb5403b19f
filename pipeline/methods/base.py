"""What every method is: a typed configuration, phases, named loss terms, and one of three answers about a scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.nn.rng import Rng
from pipeline.types import Batch

Supervision = Literal["normals", "unlabelled", "labels"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One optimiser's turn (Adam): a VAE has one, a GAN two.

    Attributes:
        name: passed back to `Method.loss`.
        modules: names of the method's submodules that this phase trains; "" is the whole method.
        lr, betas, weight_decay: of AdamW (weight decay 0 makes it Adam).
        repeats: optimiser steps per turn, each on its own batch.
        every: the phase takes a turn in every n-th round only.
        after, until: fractions of the training's images between which the phase takes turns: a codec learns first, its
            prior later. At such a border the averaged weights become the weights, and the search for the best anew.
    """

    name: str
    modules: tuple[str, ...] = ("",)
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    repeats: int = 1
    every: int = 1
    after: float = 0.0
    until: float = 1.0


class Method(nn.Module):
    """A model of normality.

    Subclasses set `phases`, give `loss`, and implement one of the protocols `Reconstructor`, `AnomalyMapper` or
    `ScanScorer`. They draw no randomness but from the `Rng` that they are given.

    Args:
        config: the configuration that built it.
        image_size: edge of the square (cubic) grid in pixels.
        channels: image channels.
        spatial_dims: 2 or 3.
    """

    supervision: Supervision = "normals"
    phases: tuple[Phase, ...] = ()
    conditional: bool = False  # True: its answer takes `about` (`pipeline.data.images.conditions`)
    channels_last: bool = False  # True where this memory format was measured to be faster on CPU

    def __init__(self, config: MethodConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.channels = channels
        self.spatial_dims = spatial_dims

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: (C, *spatial)."""
        return (self.channels, *[self.image_size] * self.spatial_dims)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return named scalars, means over the images; the loop differentiates "total"."""
        raise NotImplementedError

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return named scalars on held-out normals; "total" decides early stopping. Default: the phase's loss.

        `phase` is the first of those that take turns at this time.
        """
        return self.loss(batch, phase, rng)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Called once after training, in eval mode, with every training image in a fixed order.

        For memory banks and statistics; what is kept must have a size that configuration and image size decide, and
        the batches are on the CPU. A method without phases is fitted by this alone. Default: nothing.
        """

    def standardise(self, batches: Iterable[Batch]) -> None:
        """Called once after `finish`, in eval mode, with every held-out normal (validate) in a fixed order.

        For constants that images which were learnt from would bias, of a size that the configuration decides; the
        batches are on the CPU. Not called where nothing was held out. Default: nothing.
        """

    def after_step(self, phase: str) -> None:
        """Called after each optimiser step of `phase`; for weight clipping, codebook upkeep and the like."""

    def parameters_of(self, phase: Phase) -> list[nn.Parameter]:
        """Return the trainable parameters of a phase, in a fixed order."""
        found = {id(p): p for name in phase.modules for p in self.get_submodule(name).parameters() if p.requires_grad}
        return list(found.values())

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluate without gradients and in eval mode: with batch statistics a score would depend on its neighbours."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def check(self, x: Tensor) -> Tensor:
        """Return `x`, or refuse it.

        Raises:
            ConfigError: the shape is not [B, C, *spatial] of this method.
            Rejected: NaN or infinity (code non-finite-pixels).
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise ConfigError(
                f"{self.config.name} was built for images [B, {', '.join(map(str, self.image_shape))}] and got "
                f"{list(x.shape)}. Normalise to that size, or build the method for the size at hand."
            )
        check_finite(x)
        return x


def check_finite(x: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        Rejected: with the code non-finite-pixels; the sentence counts the images concerned.
    """
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x).flatten(1).all(dim=1)).sum())
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {len(x)} images hold NaN or infinite pixels; every pixel must be finite. "
            "Exclude them, or look at the normaliser.",
        )


class MethodConfig(Config):
    """Base of the methods' configurations; `name` tells them apart."""

    name: str

    def build(self, image_size: int, channels: int = 1, spatial_dims: int = 2, *, seed: int = 0) -> Method:
        """Return the method with weights drawn from `seed`; the global generator is left as it was.

        Raises:
            ConfigError: an image size, channel count or dimension that the network cannot take.
        """
        if spatial_dims not in (2, 3) or channels < 1:
            raise ConfigError(
                f"{self.name} takes 2 or 3 dimensions and 1 or more channels, not {spatial_dims}, {channels}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build(image_size, channels, spatial_dims)

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        raise NotImplementedError


@runtime_checkable
class Reconstructor(Protocol):
    """Answers "what would this be if it were normal?" with an image of the same shape."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat [B, C, *spatial] for x of that shape; a row depends on itself and its own keys only."""
        ...


@runtime_checkable
class AnomalyMapper(Protocol):
    """Has no x_hat, but says where an image is unusual."""

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return [B, 1, *spatial], higher = more anomalous."""
        ...


@runtime_checkable
class ScanScorer(Protocol):
    """Has neither x_hat nor map: one number an image."""

    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """Return [B], higher = more anomalous."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Writes images as codes and reads them back: what latent models are built on. Neither draws randomness."""

    def to_code(self, x: Tensor) -> Tensor:
        """Return the code [B, D, *grid] of x [B, C, *spatial]; one without a grid has a grid of 1 everywhere."""
        ...

    def from_code(self, z: Tensor) -> Tensor:
        """Return images [B, C, *spatial] of codes, which need not be codes of an image."""
        ...


def levels_between(image_size: int, bottom: int, at_least: int = 1) -> int:
    """Return how many halvings lead from `image_size` to a grid of `bottom` pixels or a little more (< 2 x)."""
    levels = at_least
    while image_size // 2 ** (levels + 1) >= bottom and image_size % 2 ** (levels + 1) == 0:
        levels += 1
    return levels


def require_size(method: str, image_size: int, multiple: int, smallest: int) -> None:
    """Refuse a grid that the network cannot halve evenly.

    Raises:
        ConfigError: naming the allowed sizes nearest to the one asked for.
    """
    if image_size >= smallest and image_size % multiple == 0:
        return
    first = max(smallest, image_size // multiple * multiple)
    raise ConfigError(
        f"{method} cannot take images of {image_size} pixels: the size must be a multiple of {multiple}, at least "
        f"{smallest}. The nearest allowed sizes are {first} and {first + multiple}."
    )


def widths(channels: Sequence[int], levels: int) -> list[int]:
    """Return the channel width of each level: as listed, the last repeated."""
    return [channels[min(level, len(channels) - 1)] for level in range(levels)]
