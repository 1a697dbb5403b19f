"""What a run says about its data: route, normalisation, caching, sets. `configs/data/*.yaml` hold these."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.data.intensity import NormaliserConfig
from pipeline.data.splits import SplitPolicy


class DataConfig(Config):
    """Which scans, and how they become what the model sees."""

    route: str = Field(min_length=1, description="name of the route whose series are read")
    normaliser: NormaliserConfig = Field(description="intensity range, image size and body mask")
    cache: Literal["ram", "disk", "none"] = Field(
        "ram", description="where normalised slices wait; beyond ram_gib the disk is used"
    )
    ram_gib: float = Field(4.0, gt=0, description="most memory that the cache may take, GiB")
    allow_gaps: bool = Field(False, description="take volumes with missing slices")
    allow_tilt: bool = Field(False, description="take stacks sheared by a tilted gantry, and score their slices")
    splits: SplitPolicy = Field(SplitPolicy(), description="how patients are divided into sets")
