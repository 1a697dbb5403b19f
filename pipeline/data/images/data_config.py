"""Data configuration of a run: route, normalisation, caching, sets. `configs/data/*.yaml` hold such configurations."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.data.images.intensity import NormaliserConfig
from pipeline.data.images.volume import VolumeConfig
from pipeline.data.sets.folds import Fold
from pipeline.data.sets.splits import SplitPolicy
from pipeline.dicom.decode.geometry import Allowed


class DataConfig(Config):
    """Which scans to use, and how they are turned into model input."""

    route: str = Field(min_length=1, description="name of the route whose series are read")
    normaliser: NormaliserConfig = Field(description="intensity range, image size and body mask")
    cache: Literal["ram", "disk", "none"] = Field(
        "ram", description="where normalised slices are stored; above ram_gib on disk"
    )
    ram_gib: float = Field(4.0, gt=0, description="most memory that the cache may use, GiB")
    allow_gaps: bool = Field(False, description="accept stacks with missing slices, and score their slices")
    allow_tilt: bool = Field(False, description="accept stacks sheared by a tilted gantry, and score their slices")
    volumes: VolumeConfig | None = Field(
        None,
        description="read series as volumes; null reads them slice by slice",
    )
    fold: Fold | None = Field(
        None,
        description="cross-fitting: the fold of patients that is this run's develop set; null keeps the stored sets; a "
        "run with a fold is never registered",
    )
    splits: SplitPolicy = Field(SplitPolicy(), description="how patients are divided into sets")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.volumes is None:
            return self
        if self.allow_gaps or self.allow_tilt:
            raise ValueError(
                "a volume has neither gaps nor tilt: set allow_gaps and allow_tilt to false, or leave volumes out"
            )
        if self.volumes.tile > self.normaliser.image_size:
            raise ValueError(
                f"volumes.tile ({self.volumes.tile}) must not exceed normaliser.image_size "
                f"({self.normaliser.image_size}): cubes are cut from the square"
            )
        return self

    @property
    def allowed(self) -> Allowed:
        """Irregularities that a stack may have."""
        return Allowed(self.allow_gaps, self.allow_tilt, self.volumes.least_slices if self.volumes else None)
