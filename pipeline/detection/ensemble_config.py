"""Configuration of an ensemble, used in place of a method's configuration."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig

SECTIONS = {"method", "training", "detection", "unlabelled"}  # parts of a run that a member may have of its own


class MemberConfig(Config):
    """One member: a calibrated run of the same route, or a run to train first."""

    run: str | None = Field(None, min_length=1, description="id of the run, or its unambiguous beginning")
    sha256: str | None = Field(None, description="SHA-256 of its detector; any other one is rejected")
    train: dict[str, Any] | None = Field(
        None,
        description="instead of `run`: `method`, `training`, `detection` and `unlabelled` of a run that is trained "
        "first; the rest is the ensemble's own",
    )
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="of its z-score in the mean, relative to the others"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.run is None) == (self.train is None):
            raise ValueError("a member is either a trained run (`run`) or one to train (`train`). Give one of them")
        if self.train is not None and not {"method"} <= set(self.train) <= SECTIONS:
            raise ValueError(
                f"`train` has the sections {', '.join(sorted(self.train)) or 'none'}; it needs `method`, and may have "
                "`training`, `detection` and `unlabelled`"
            )
        return self


class EnsembleConfig(MethodConfig):
    """Configuration of `ensemble`: only its members are trained."""

    name: Literal["ensemble"] = "ensemble"
    members: tuple[MemberConfig, ...] = Field(
        min_length=2, description="z-scored on validate normals and averaged by weight"
    )

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        raise ConfigError("An ensemble has no weights of its own to build or train. Train its members.")
