"""The group of a study, by attributes of the series that its score rests on, and its p-value within that group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pipeline.data.sets.series_kind import kind_of
from pipeline.detection.conformal import Calibration
from pipeline.detection.mondrian import GroupAttribute, find_reference
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.types import Finding, SliceRef

UNSTATED = "not stated"
_READERS: dict[GroupAttribute, Callable[[InstanceAttributes], str]] = {
    "scanner": lambda one: one.scanner,
    "protocol": lambda one: " ".join(one.description),
    "series_kind": lambda one: str(kind_of(one)),
    "sex": lambda one: one.sex,
    "age_band": lambda one: one.age_band,
}


def name_groups(results: Iterable[Finding], slices: Sequence[SliceRef], by: Sequence[GroupAttribute]) -> dict[str, str]:
    """Return study -> name of its group, such as `scanner PHANTOM MR 3T, sex F`.

    Args:
        results: findings, whose evidence says which series count.
        slices: those that were scored; the first of a series stands for it.
        by: attributes, in the order of the name. Several values within a study are joined by `+`.
    """
    first = {ref.series_id: ref for ref in reversed(slices)}
    return {one.study_id: _name([first[series] for series in _series_of(one)], by) for one in results}


def _series_of(finding: Finding) -> list[str]:
    return list(dict.fromkeys(one.series_id for one in finding.evidence))


def _name(refs: Sequence[SliceRef], by: Sequence[GroupAttribute]) -> str:
    read = [InstanceAttributes.from_json(ref.attributes) for ref in refs]
    values = {name: sorted({_READERS[name](one) or UNSTATED for one in read}) for name in by}
    return ", ".join(f"{name.replace('_', ' ')} {' + '.join(several)}" for name, several in values.items())


def rank_within_groups(
    results: Sequence[Finding], slices: Sequence[SliceRef], calibration: Calibration, by: Sequence[GroupAttribute]
) -> list[Finding]:
    """Return the findings ranked within their groups, or among all where a group is too small; each says which."""
    groups = name_groups(results, slices, by)
    ranked = []
    for one in results:
        reference, worth = find_reference(calibration, groups[one.study_id])
        p_value = reference.p_value(one.score)
        ranked.append(replace(one, p_value=p_value, n_calibration=reference.n, guarantee=worth))
    return ranked
