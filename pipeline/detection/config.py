"""Configuration of a detector, from a reconstruction to a flagged list."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.detection.aggregate import AggregateConfig
from pipeline.detection.flag import FlaggingConfig
from pipeline.detection.mondrian import GroupingConfig
from pipeline.detection.residual import ResidualConfig
from pipeline.detection.tiles import TileConfig


class DetectionConfig(Config):
    """Configuration from a reconstruction to a flagged list."""

    residual: ResidualConfig = Field(ResidualConfig(), description="comparison of image and reconstruction")
    aggregate: AggregateConfig = Field(AggregateConfig(), description="aggregation from map to slice, series and study")
    transform: Literal["none", "two_sided"] = Field(
        "none",
        description="transform of a slice's score; `two_sided` is |s - median| / MAD of validate normals: smoother "
        "than normal is unusual too",
    )
    flagging: FlaggingConfig = Field(FlaggingConfig(), description="rule that flags findings of a night")
    groups: GroupingConfig = Field(
        GroupingConfig(), description="groups of scans that get thresholds of their own; none by default"
    )
    tiles: TileConfig = Field(
        TileConfig(),
        description="for volumes: layout and blending of the model's cubes",
    )
    batch_size: int = Field(64, ge=1, description="slices scored at once; no score depends on it")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="precision of the method's forward pass; residual and score are always fp32 and fp64"
    )
    device: Literal["cpu", "auto"] = Field(
        "cpu",
        description="auto scores on a CUDA device if there is one",
    )
