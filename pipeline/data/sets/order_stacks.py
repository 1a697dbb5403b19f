"""Put the slices of series in geometric order, stack by stack, or say why a series or a stack cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.content_hash import shared_attributes
from pipeline.data.catalogue.database import CHUNK
from pipeline.data.catalogue.schema import Instance
from pipeline.data.sets.routes import NotScoredReason
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.content import Content
from pipeline.dicom.decode.geometry import Allowed
from pipeline.dicom.decode.split_series import Stack, attributes_of, require_stack_volume, split_stacks
from pipeline.errors import Rejected
from pipeline.types import SliceRef

Refuse = Callable[[InstanceAttributes], NotScoredReason | None]


def order_stacks(
    session: Session, series: Sequence[Row], allowed: Allowed, refuse: Refuse
) -> Iterator[tuple[Row, list[SliceRef] | NotScoredReason]]:
    """Yield each series with the slices of a stack, as often as it has stacks; or with a reason against it or a stack.

    Args:
        session: of the catalogue.
        series: rows with series_id, study_id, patient_id, set_name, image_is_subject and attributes.
        allowed: irregularities that a stack may have.
        refuse: says why a stack with these attributes is not read, None if it is; asked where a series has several, or
            images of different meaning.
    """
    for start in range(0, len(series), CHUNK):
        part = series[start : start + CHUNK]
        instances = _read_instances(session, [row.series_id for row in part])
        for row in part:
            rows = instances.pop(row.series_id, [])
            images = {one.instance_id: InstanceAttributes.from_json(one.attributes) for one in rows}
            try:
                frames = {one.instance_id: one.frame_of_reference_id for one in rows}
                stacks = split_stacks(list(images.items()), allowed, frames)
            except Rejected as error:
                yield row, NotScoredReason(error.code.value, error.sentence)
                continue
            mixed = row.attributes.get("content") == Content.MIXED
            for stack in stacks:
                left_out = _left_out(stack, images, allowed, refuse) if stack.reason or mixed else None
                yield row, left_out or list(_refs(row, rows, stack))


def _left_out(
    stack: Stack, images: Mapping[str, InstanceAttributes], allowed: Allowed, refuse: Refuse
) -> NotScoredReason | None:
    """Return why one of several stacks is not read: its own images decide on the route, not the whole series."""
    reason = refuse(share_attributes((images[name], frame) for name, frame in stack.geometry.order))
    if reason is None:
        try:
            require_stack_volume(stack, allowed)
        except Rejected as error:
            reason = NotScoredReason(error.code.value, error.sentence)
    if reason is None or not stack.reason:
        return reason
    return NotScoredReason(reason.code, f"{stack.reason}: {reason.sentence}")


def share_attributes(frames: Iterable[tuple[InstanceAttributes, int]]) -> InstanceAttributes:
    """Return what the frames of a stack have in common, each an image's attributes and its number."""
    own = [attributes_of(attributes, frame).to_json() for attributes, frame in frames]
    shared: dict[str, Any] = reduce(shared_attributes, own)
    return InstanceAttributes.from_json(shared)


def _read_instances(session: Session, series_ids: list[str]) -> dict[str, list[Row]]:
    columns = (Instance.series_id, Instance.instance_id, Instance.pixel_key, Instance.attributes)
    query = select(*columns, Instance.frame_of_reference_id).where(Instance.series_id.in_(series_ids))
    by_series: dict[str, list[Row]] = {}
    for row in session.execute(query.order_by(Instance.instance_id).execution_options(yield_per=2_000)):
        by_series.setdefault(row.series_id, []).append(row)
    return by_series


def _refs(series: Row, rows: Sequence[Row], stack: Stack) -> Iterator[SliceRef]:
    """Yield the slices of a stack in geometric order; all frames of an instance share one mapping of attributes."""
    geometry = stack.geometry
    several = len(geometry.order) > 1
    instances = {row.instance_id: row for row in rows}
    attributes = {row.instance_id: _compact(row.attributes, rows[0].attributes) for row in rows}
    for (instance_id, frame), position in zip(geometry.order, geometry.relative_positions, strict=True):
        yield SliceRef(
            instance_id=instance_id,
            frame=frame,
            series_id=series.series_id,
            study_id=series.study_id,
            patient_id=series.patient_id,
            pixel_key=instances[instance_id].pixel_key,
            attributes=attributes[instance_id],
            relative_position=position,
            set_name=series.set_name,
            image_is_subject=series.image_is_subject,
            geometric_position=position if several else None,
            slice_mm=geometry.spacing_mm[0],
            stack=stack.reason,
            frame_of_reference_id=sys.intern(instances[instance_id].frame_of_reference_id),
        )


def _compact(values: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with interned keys, sharing values that equal the first instance's; this only saves memory."""
    return {sys.intern(key): first[key] if first.get(key) == value else value for key, value in values.items()}
