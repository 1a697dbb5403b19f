"""Thresholds within groups of scans (Mondrian conformal prediction) where a group has enough calibration normals.

A pooled threshold holds its false-alarm rate on average over all scans: a scanner whose normals score higher raises
more false alarms, another fewer. Ranked among the calibration normals of its own group alone, a normal scan's p-value
is uniform within that group (Vovk, Gammerman and Shafer 2005, section 4.5; Vovk 2012), as far as scans of one group
are exchangeable. The groups are attributes of the files, never of the scores. A group that is too small uses the pooled
threshold, whose rate is then not promised for that group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.detection.conformal import Calibration
from pipeline.errors import TooFewNormals

GroupAttribute = Literal["scanner", "protocol", "series_kind", "sex", "age_band"]


class GroupingConfig(Config):
    """Attributes whose groups get thresholds of their own."""

    by: tuple[GroupAttribute, ...] = Field(
        (), description="attributes that make a group together, such as [scanner, sex]; empty: one threshold for all"
    )
    margin: int = Field(
        20, ge=0, description="calibration normals that a group needs beyond the fewest for alpha, ceil(1 / alpha) - 1"
    )


def count_needed(alpha: float, margin: int) -> int:
    """Return the calibration normals that a group needs for a threshold of its own."""
    return math.ceil(1 / Fraction(repr(float(alpha)))) - 1 + margin


def find_reference(calibration: Calibration, group: str) -> tuple[Calibration, str]:
    """Return the calibration that a scan of a group is ranked in, and what its p-value is worth, in words."""
    if not calibration.groups:
        return calibration, calibration.guarantee
    own = next((one.scores for one in calibration.groups if one.name == group), ())
    if len(own) >= calibration.group_least:
        return Calibration(scores=own, patients=len(own)), f"conformal within {group}"
    few = f"{group} has {len(own)} calibration normals, and {calibration.group_least} are needed"
    return calibration, f"conformal, pooled over all groups: {few}"


def describe_groups(calibration: Calibration, alpha: float) -> list[dict[str, Any]]:
    """Return each group's name, n, whether it has a threshold of its own (`own`), and that threshold or the pooled one.

    `threshold` is None where there are too few normals for alpha.
    """
    rows = []
    for one in calibration.groups:
        reference, _ = find_reference(calibration, one.name)
        value = None
        with suppress(TooFewNormals):
            value = reference.threshold(alpha).value
        own = reference is not calibration
        rows.append({"group": one.name, "n": len(one.scores), "own": own, "threshold": value})
    return rows


def write_groups(rows: Sequence[Mapping[str, Any]], least: int) -> str:
    """Return `describe_groups` as a sentence with a leading space; "" without groups."""
    if not rows:
        return ""
    own = [f"{one['group']} ({one['n']} normals, {one['threshold']:.5g})" for one in rows if one["own"]]
    pooled = [f"{one['group']} ({one['n']})" for one in rows if not one["own"]]
    parts = [f"thresholds of their own: {'; '.join(own)}"] if own else []
    parts += [f"pooled, having fewer than {least} normals: {'; '.join(pooled)}"] if pooled else []
    return f" Groups with {'. Groups that are '.join(parts)}." if own else f" Groups that are {parts[0]}."
