"""Configuration of the tasks that undo a degradation: super-resolve, inpaint, outpaint and restore."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.corruption.degrade import Blur, CartesianLines, DegradationConfig, Downsample
from pipeline.corruption.degrade_masks import Border, Box, Rectangles, Strokes, Tiles
from pipeline.corruption.degrade_noise import GaussianNoise, NoiseConfig
from pipeline.diffusion.posterior import PosteriorConfig
from pipeline.stages.generate.task_base import BesideTask

AnyMask = Annotated[Strokes | Box | Border | Tiles | Rectangles, Field(discriminator="kind")]


class RestorationTask(BesideTask):
    """A task whose images were degraded in a known way."""

    posterior: PosteriorConfig = Field(
        PosteriorConfig(), description="how a `ddpm` answers, which was not trained for the task"
    )

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """The degradations of the task, each a problem of its own."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _degrades_once(self) -> Self:
        if len({way.label for way in self.ways}) < len(self.ways):
            raise ValueError(
                f"two degradations have the same name ({', '.join(way.label for way in self.ways)}), so a table "
                "could not tell them apart. Leave one of them out"
            )
        return self


class SuperResolveTask(RestorationTask):
    """Held-out images of fewer pixels, enlarged to their first size."""

    task: Literal["super-resolve"] = "super-resolve"
    factors: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (4,), min_length=1, description="pixels along one edge that became one; each must divide the image size"
    )
    noise: NoiseConfig | None = Field(None, description="noise on the small images; null: none")

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """One per factor."""
        return tuple(DegradationConfig(steps=(Downsample(factor=one),), noise=self.noise) for one in self.factors)


class InpaintTask(RestorationTask):
    """Held-out images with a hole, which is filled."""

    task: Literal["inpaint"] = "inpaint"
    masks: tuple[AnyMask, ...] = Field(
        (Strokes(), Box()), min_length=1, description="masks of missing pixels, each a problem of its own"
    )

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """One per mask."""
        return tuple(DegradationConfig(steps=(mask,)) for mask in self.masks)


class OutpaintTask(RestorationTask):
    """Held-out images without their border, which is continued."""

    task: Literal["outpaint"] = "outpaint"
    widths: tuple[Annotated[float, Field(gt=0, lt=0.5)], ...] = Field(
        (0.125,), min_length=1, description="widths of the missing border / image edge"
    )

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """One per width."""
        return tuple(DegradationConfig(steps=(Border(width=one),)) for one in self.widths)


class RestoreTask(RestorationTask):
    """Held-out images that were blurred, made noisy or measured in part, restored."""

    task: Literal["restore"] = "restore"
    degradations: tuple[DegradationConfig, ...] = Field(
        (
            DegradationConfig(steps=(Blur(),), noise=GaussianNoise(std=0.05)),
            DegradationConfig(steps=(CartesianLines(),)),
        ),
        min_length=1,
        description="degradations, each a problem of its own",
    )

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """As they are listed."""
        return self.degradations
