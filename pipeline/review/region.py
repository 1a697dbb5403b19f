"""Checks of a decision's scan: that its images still exist, and that a drawn region lies on one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.schema import FindingRow, Instance, Series
from pipeline.review.refusals import BadInput, ScanGone

Region = tuple[dict[str, Any] | None, str | None]
FEWEST = 3  # corners of an area
_DIGITS = 2  # hundredths of a pixel


def check_there(session: Session, finding: FindingRow, has_pixels: Callable[[str], bool]) -> None:
    """Check that the images that the detector read can still be displayed.

    Raises:
        ScanGone: the catalogue has no images of the scan, or the pixels of the most unusual one are not in the store.
    """
    first = str(finding.evidence[0].get("instance_id", "")) if finding.evidence else ""
    images = select(Instance.pixel_key).join(Series, Series.series_id == Instance.series_id)
    images = images.where(Series.study_id == finding.study_id)
    key = session.scalar(images.where(Instance.instance_id == first)) or session.scalar(images.limit(1))
    if key is None or not has_pixels(key):
        raise ScanGone(
            "The images of this scan are missing, so nobody could check a decision on them and none was saved. Ingest "
            "the scan again, or ask the administrator of the pixel store."
        )


def check_region(session: Session, finding: FindingRow, region: Mapping[str, Any] | None, most: int) -> Region:
    """Return the region as it is stored and the pseudonym of its image; (None, None) if nothing was drawn.

    Raises:
        BadInput: not a polygon of 3 to `most` corners within an image of this study.
    """
    if not region:
        return None, None
    image = _image(session, finding, str(region.get("instance_id", "")))
    frame = region.get("frame", 0)
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < image.frames:
        raise BadInput(
            f"The drawn region names a frame that its image does not have (it has {image.frames}). Draw it again."
        )
    points = _points(region.get("points"), most, image)
    return {"pixel_key": image.pixel_key, "frame": frame, "points": points}, image.instance_id


def draws(drawn: Mapping[str, Any], stored: Mapping[str, Any], instance_id: str | None) -> bool:
    """Return whether a drawn region, as `check_region` takes it, is a stored one: on the same image, by its corners."""
    corners = [[round(float(value), _DIGITS) for value in point] for point in drawn["points"]]
    image = (drawn["instance_id"], drawn["frame"])
    return (*image, corners) == (instance_id, stored["frame"], stored["points"])


def _image(session: Session, finding: FindingRow, instance_id: str) -> Instance:
    query = select(Instance).join(Series, Series.series_id == Instance.series_id)
    image = session.scalar(query.where(Instance.instance_id == instance_id, Series.study_id == finding.study_id))
    if image is None:
        raise BadInput("The drawn region is not on an image of this scan. Draw it again.")
    return image


def _points(points: Any, most: int, image: Instance) -> list[list[float]]:
    """Return corners (x, y) in hundredths of a pixel; x runs along the columns, and 0 is the centre of the
    first pixel.
    """
    if not isinstance(points, list) or not FEWEST <= len(points) <= most:
        count = len(points) if isinstance(points, list) else 0
        raise BadInput(f"The drawn region has {count} corners; it needs {FEWEST} to {most}. Draw it again.")
    width, height = (image.attributes.get(name) or math.inf for name in ("columns", "rows"))
    corners = []
    for point in points:
        if not (isinstance(point, list | tuple) and len(point) == 2 and all(map(_is_number, point))):
            raise BadInput("A corner of the drawn region is not a pair of numbers. Draw it again.")
        x, y = map(float, point)
        if not (-1 <= x <= width and -1 <= y <= height):
            raise BadInput("A corner of the drawn region lies outside its image. Draw it again.")
        corners.append([round(x, _DIGITS), round(y, _DIGITS)])
    return corners


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
