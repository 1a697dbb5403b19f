"""A drawn region as the page sends it: on an image by its place in the study."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.review.refusals import BadInput
from pipeline.review.stacks import CHANGED, Stacks


class Region(BaseModel):
    """A drawn line as sent by the browser: the image, and points (column, row); 0 is the centre of the first pixel."""

    model_config = ConfigDict(extra="ignore")

    stack: int = Field(ge=0)
    index: int = Field(ge=0)
    layout: str = ""
    points: list[tuple[float, float]] = Field(min_length=3)


def read_region(text: str, stacks: Stacks) -> dict[str, Any] | None:
    """Return a drawn region with the image that it lies on; None if nothing was drawn.

    Raises:
        BadInput: it is not a region, or lies on an image that the scan does not have.
    """
    if not text:
        return None
    try:
        region = Region.model_validate(json.loads(text))
    except (ValueError, ValidationError, RecursionError):
        raise BadInput("The drawn region cannot be read. Draw it again.") from None
    if region.layout not in ("", stacks.layout):
        raise BadInput(CHANGED)
    ref = stacks.ref(region.stack, region.index)
    if ref is None:
        raise BadInput("The region lies on an image that this scan does not have. Draw it again.")
    return {"instance_id": ref.instance_id, "frame": ref.frame, "points": [list(point) for point in region.points]}
