"""The configuration of an ensemble, which stands where a method's configuration stands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, MethodConfig


class MemberConfig(Config):
    """One member: a calibrated run of the same route."""

    run: str = Field(min_length=1, description="id of the run, or its unambiguous beginning")
    sha256: str | None = Field(None, description="of its detector; given, another one is refused")


class EnsembleConfig(MethodConfig):
    """Configuration of `ensemble`: nothing is trained, its members are."""

    name: Literal["ensemble"] = "ensemble"
    members: tuple[MemberConfig, ...] = Field(min_length=2, description="z-scored on validate normals and averaged")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        raise ConfigError("An ensemble has no weights of its own to build or train; train its members.")
