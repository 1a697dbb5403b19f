"""Hanging protocols: the layout, the window and the company with which the scans of each route open."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.config import Config, ReviewPolicy, find_shipped_file, load_config

SHIPPED = Path("configs") / "review" / "hanging.yaml"
Layout = Literal["1x1", "1x2", "2x2"]
Beside = Literal["earlier", "series"]


class Hanging(Config):
    """Layout, window and further panes with which the scans of one route open."""

    layout: Layout = Field("1x1", description="panes: 1x1, 1x2 or 2x2; fewer where there is nothing to fill them")
    window: tuple[float, float] | None = Field(
        None, description="centre and width in physical units (HU in CT); default: the window of the file"
    )
    beside: tuple[Beside, ...] = Field(
        ("earlier", "series"),
        description="order of what fills the further panes: the latest earlier study, the other series of the study",
    )

    @field_validator("window")
    @classmethod
    def _has_width(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and window[1] <= 0:
            raise ValueError(f"the window [centre, width] has the width {window[1]:g}: it must be above 0")
        return window


class HangingList(Config):
    """Hangings by name of the route; every other route opens as `default` says."""

    default: Hanging = Field(Hanging(), description="of routes that are not listed")
    routes: dict[str, Hanging] = Field({}, description="by the name of the route")

    def of(self, route: str) -> Hanging:
        """Return the hanging of a route."""
        return self.routes.get(route, self.default)


def load_hangings(policy: ReviewPolicy) -> HangingList:
    """Return the hangings that the settings name, or the shipped ones.

    Raises:
        ConfigError: the file is missing, or is not such a list.
    """
    return load_config(policy.hanging or find_shipped_file(SHIPPED), HangingList)
