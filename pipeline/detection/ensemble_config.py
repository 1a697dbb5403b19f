"""Configuration of an ensemble, used in place of a method's configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig


class MemberConfig(Config):
    """One member: a calibrated run of the same route."""

    run: str = Field(min_length=1, description="id of the run, or its unambiguous beginning")
    sha256: str | None = Field(None, description="SHA-256 of its detector; any other one is rejected")


class EnsembleConfig(MethodConfig):
    """Configuration of `ensemble`: only its members are trained."""

    name: Literal["ensemble"] = "ensemble"
    members: tuple[MemberConfig, ...] = Field(min_length=2, description="z-scored on validate normals and averaged")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        raise ConfigError("An ensemble has no weights of its own to build or train. Train its members.")
