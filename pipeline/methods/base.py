"""Contract of every method: a typed configuration, phases, named loss terms, and one of three answers about a scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.methods.component import ComponentConfig
from pipeline.methods.supervision import Supervision, find_supervision
from pipeline.nn.gradients import unless_kept
from pipeline.nn.rng import Rng
from pipeline.types import Batch


@dataclass(frozen=True, slots=True)
class Phase:
    """One optimiser's turn (Adam): a VAE has one, a GAN two.

    Attributes:
        name: passed back to `Method.loss`.
        modules: names of the method's submodules that this phase trains; "" is the whole method.
        lr, betas, weight_decay: hyperparameters of AdamW (weight decay 0 makes it Adam).
        repeats: optimiser steps per turn, each on a batch of its own.
        every: the phase takes a turn only in every n-th round.
        after, until: the phase takes turns between these fractions of the training images: a codec learns first, its
            prior later. At each boundary the EMA weights replace the live weights, and the search for the best
            restarts.
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

    Subclasses set `phases`, define `loss`, and implement one of the protocols `Reconstructor`, `AnomalyMapper` or
    `ScanScorer`. All their randomness comes from the `Rng` that they are given.

    Args:
        config: the configuration that built it.
        image_size: edge of the square (cubic) grid in pixels.
        channels: image channels.
        spatial_dims: 2 or 3; 1 for signals, where `MethodConfig.dimensions` has it.
    """

    phases: tuple[Phase, ...] = ()
    conditional: bool = False  # True: its answer takes `about` (`pipeline.data.images.conditions`)
    channels_last: bool = False  # True if this memory format was measured to be faster on CPU
    named: tuple[str, ...] = ()  # submodules that are the methods of other models, which hold their weights

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

    @property
    def supervision(self) -> Supervision:
        """What it learns from."""
        return find_supervision(self.config)

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of its weights and of the images of a training batch."""
        two = self.channels_last and self.spatial_dims == 2
        return torch.channels_last if two else torch.contiguous_format

    def arrange(self) -> Self:
        """Put the weights in memory as `layout` says, and return the method; no value changes."""
        return self.to(memory_format=self.layout)  # type: ignore[call-overload]  # torch's stub lacks it

    @property
    def passes(self) -> int | None:
        """Forward passes of its networks that the answer for one image takes; None where it depends on the image."""
        return 1

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return named scalars, means over the images; the loop differentiates "total"."""
        raise NotImplementedError

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return named scalars on held-out normals; "total" decides early stopping. Default: the phase's loss.

        `phase` is the first of the phases that take turns at this time.
        """
        return self.loss(batch, phase, rng)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Fit statistics after training; called once, in eval mode, with every training image in a fixed order.

        For memory banks and statistics; their size must be fixed by the configuration and the image size. The batches
        are on the CPU. A method without phases is fitted by this call alone. Default: nothing.
        """

    def standardise(self, batches: Iterable[Batch]) -> None:
        """Fit constants on held-out normals (validate); called once after `finish`, in eval mode, in a fixed order.

        For constants that training images would bias; their size must be fixed by the configuration. The batches are on
        the CPU. Not called if nothing was held out. Default: nothing.
        """

    def after_step(self, phase: str) -> None:
        """Update state after each optimiser step of `phase`: clipped weights, a codebook. Default: nothing."""

    def own_state(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, without those of other models (`named`), which never change here."""
        return {name: value for name, value in self.state_dict().items() if name.split(".")[0] not in self.named}

    def parameters_of(self, phase: Phase) -> list[nn.Parameter]:
        """Return the trainable parameters of a phase, in a fixed order."""
        parameters = {
            id(p): p for name in phase.modules for p in self.get_submodule(name).parameters() if p.requires_grad
        }
        return list(parameters.values())

    def phases_within(self, name: str, share: float) -> tuple[Phase, ...]:
        """Return the phases of this method as those of one that holds it as its submodule `name`.

        They take turns in the first `share` of the training, and are called `name`_`phase`; none if the share is 0.
        """
        return tuple(
            replace(
                phase,
                name=f"{name}_{phase.name}",
                modules=tuple(f"{name}.{module}".rstrip(".") for module in phase.modules),
                after=phase.after * share,
                until=phase.until * share,
            )
            for phase in (self.phases if share else ())
        )

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluate in eval mode without gradients: batch statistics would make a score depend on its neighbours."""
        was_training = self.training
        self.eval()
        try:
            with unless_kept():
                yield
        finally:
            self.train(was_training)

    def check(self, x: Tensor) -> Tensor:
        """Return `x` unchanged if it is valid.

        Raises:
            ConfigError: the shape is not this method's [B, C, *spatial].
            Rejected: NaN or infinity (code non-finite-pixels).
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise ConfigError(
                f"{self.config.name} expects images [B, {', '.join(map(str, self.image_shape))}] and got "
                f"{list(x.shape)}. Normalise the images to that size, or build the method for this size."
            )
        check_finite(x)
        return x


def check_finite(x: Tensor) -> None:
    """Raise an error for NaN or infinity.

    Raises:
        Rejected: with the code non-finite-pixels; the message counts the images.
    """
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x).flatten(1).all(dim=1)).sum())
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {len(x)} images have NaN or infinite pixels; every pixel must be finite. "
            "Leave these scans out of the data, or check the settings of the normaliser.",
        )


class MethodConfig(Config):
    """Base of the methods' configurations; `name` identifies the method."""

    name: str
    unpaired: ClassVar[bool] = False  # True: `Batch.target` shows other patients than `Batch.images`
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)  # spatial ones that the method has networks for

    def components(self) -> Mapping[str, ComponentConfig]:
        """Return the configurations of the methods that this one holds, by name. Default: none."""
        return {}

    def name_component(self, field: str, component: Method) -> Self:
        """Return the configuration with that of a trained component, which only its model had."""
        choice = self.components()[field]
        if not choice.trained:
            return self
        own = component.config.model_dump(mode="json")
        return self.model_copy(update={field: choice.model_copy(update={"method": own})})

    def component_seeds(self, seed: int) -> dict[str, int]:
        """Return the seeds of the components that are not trained yet, drawn from the method's own `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._draw_seeds()

    def _draw_seeds(self) -> dict[str, int]:
        return {name: int(torch.randint(2**31, ())) for name, one in self.components().items() if not one.trained}

    def build(
        self,
        image_size: int,
        channels: int = 1,
        spatial_dims: int = 2,
        *,
        seed: int = 0,
        components: Mapping[str, Method] | None = None,
    ) -> Method:
        """Return the method with weights drawn from `seed`, in its `layout`; the state of the global generator is
        restored.

        A method with components gets them here; `build_method` builds these first.

        Raises:
            ConfigError: an image size, channel count or dimension that the network does not support, or a component is
                missing.
        """
        if spatial_dims not in self.dimensions or channels < 1:
            raise ConfigError(
                f"{self.name} supports {', '.join(map(str, self.dimensions))} dimensions and at least 1 channel, not "
                f"{spatial_dims} and {channels}."
            )
        parts = components or {}
        if missing := sorted(self.components().keys() - parts.keys()):
            raise ConfigError(
                f"{self.name} was not given its {', '.join(missing)}. Build it with pipeline.methods.build_method, "
                "with `trained` for a component that is a trained model."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._draw_seeds()  # the method's own weights come after its components' seeds
            return self._build_with(image_size, channels, spatial_dims, parts).arrange()

    def _build_with(
        self, image_size: int, channels: int, spatial_dims: int, components: Mapping[str, Method]
    ) -> Method:
        """Build from components; a method without any needs only `_build`."""
        return self._build(image_size, channels, spatial_dims)

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        raise NotImplementedError

    def check_size(self, image_size: int, components: Mapping[str, Method]) -> None:
        """Check that the method and its components, here built for another size, can have images of this size.

        Raises:
            ConfigError: they cannot; the message names the nearest allowed sizes.
        """


def levels_between(image_size: int, bottom: int, at_least: int = 1) -> int:
    """Return the number of halvings from `image_size` to a grid of at least `bottom` pixels (less than twice that)."""
    levels = at_least
    while image_size // 2 ** (levels + 1) >= bottom and image_size % 2 ** (levels + 1) == 0:
        levels += 1
    return levels


def require_size(method: str, image_size: int, multiple: int, smallest: int) -> None:
    """Check that the network can halve the grid evenly.

    Raises:
        ConfigError: it cannot; the message names the nearest allowed sizes.
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
