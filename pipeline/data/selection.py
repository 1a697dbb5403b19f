"""From the catalogue to slices in order: which scans a route, a set and a label choose, and which it cannot use."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.orm import Session

from pipeline.data.routes import NotScoredReason, Route, route_of
from pipeline.data.schema import Instance, Patient, Series, Study
from pipeline.data.series import NotScoredSeries
from pipeline.data.splits import eligible
from pipeline.data.standing import StandingLabels, chunks
from pipeline.dicom.attributes import InstanceAttributes
from pipeline.dicom.geometry import SeriesGeometry, assemble
from pipeline.errors import ConfigError, Rejected
from pipeline.types import NORMAL_SETS, Label, SetName, SliceRef

if TYPE_CHECKING:
    from pipeline.data.catalogue import Catalogue

__all__ = ["NotScoredSeries", "Selection", "select_slices", "slices"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen.

    Attributes:
        slices: the chosen slices, series by series, each in geometric order.
        not_scored: series that match, but that no route takes or whose geometry is refused, with their codes.
        members: every slice of each chosen series, chosen or not: what its statistics are taken over.
    """

    slices: tuple[SliceRef, ...]
    not_scored: tuple[NotScoredSeries, ...]
    members: Mapping[str, tuple[SliceRef, ...]]


def slices(catalogue: Catalogue, **choices: Any) -> list[SliceRef]:
    """Return only the slices of `select_slices`."""
    return list(select_slices(catalogue, **choices).slices)


def select_slices(
    catalogue: Catalogue,
    *,
    modality: str | None = None,
    route: str | None = None,
    routes: Sequence[Route] = (),
    sets: Collection[SetName] | None = None,
    labels: Collection[Label] | None = None,
    study_ids: Collection[str] | None = None,
    allow_gaps: bool = False,
) -> Selection:
    """Choose slices. Every argument narrows; None does not.

    Args:
        catalogue: where to look.
        modality: DICOM modality.
        route: name of the route that must take the series; needs `routes`.
        routes: all routes, in order of precedence; given, series that none of them takes are listed in `not_scored`.
        sets: sets of the patients. With it the law of the sets holds (`splits.eligible`): train, validate and calibrate
            give normal slices of identified patients only. Without it everything is chosen, as for scoring.
        labels: labels that may stand on the slice.
        study_ids: pseudonyms of studies.
        allow_gaps: accept volumes with missing slices.

    Raises:
        ConfigError: `route` is not among `routes`.
    """
    if route is not None and route not in {one.name for one in routes}:
        raise ConfigError(f"The route {route!r} is not among {[one.name for one in routes]}; name one of those.")
    picker = _Picker(route, tuple(routes), allow_gaps)
    with catalogue.reading() as session:
        for rows in _series_rows(session, _query(modality, sets), study_ids):
            picker.take(rows)
        standing = StandingLabels.read(session, _subjects(picker.members.values()))
    members = {series_id: tuple(_labelled(refs, standing)) for series_id, refs in picker.members.items()}
    chosen = [ref for refs in members.values() for ref in refs if _fits(ref, sets, labels)]
    kept = {ref.series_id for ref in chosen}
    return Selection(tuple(chosen), tuple(picker.not_scored), {key: members[key] for key in members if key in kept})


class _Picker:
    """Takes the rows of one series after the other; keeps ordered members, or the reason against them."""

    def __init__(self, route: str | None, routes: tuple[Route, ...], allow_gaps: bool) -> None:
        self._route, self._routes, self._allow_gaps = route, routes, allow_gaps
        self.members: dict[str, list[SliceRef]] = {}
        self.not_scored: list[NotScoredSeries] = []

    def take(self, rows: Sequence[Row]) -> None:
        """Look at the instances of one series."""
        if not self._is_taken(rows[0]):
            return
        instances = [(row.instance_id, InstanceAttributes.from_json(row.attributes)) for row in rows]
        try:
            geometry = assemble(instances, allow_gaps=self._allow_gaps)
        except Rejected as error:
            self._refuse(rows[0], error.code.value, error.sentence)
        else:
            self.members[rows[0].series_id] = list(_refs(rows, geometry))

    def _is_taken(self, row: Row) -> bool:
        """Whether the route wants the series; what the series' instances share decides."""
        if not self._routes:
            return True
        found = route_of(InstanceAttributes.from_json(row.series_attributes), self._routes)
        if isinstance(found, NotScoredReason):
            self._refuse(row, found.code, found.sentence)
            return False
        return self._route is None or found.name == self._route

    def _refuse(self, row: Row, code: str, sentence: str) -> None:
        self.not_scored.append(NotScoredSeries(row.series_id, row.study_id, code, sentence))


def _refs(rows: Sequence[Row], geometry: SeriesGeometry) -> Iterator[SliceRef]:
    """Yield the slices of a series in geometric order; the frames of an instance share one mapping of attributes."""
    by_id = {row.instance_id: row for row in rows}
    attributes = {row.instance_id: _compact(row.attributes, rows[0].attributes) for row in rows}
    for (instance_id, frame), position in zip(geometry.order, geometry.relative_positions, strict=True):
        row = by_id[instance_id]
        yield SliceRef(
            instance_id=instance_id,
            frame=frame,
            series_id=row.series_id,
            study_id=row.study_id,
            patient_id=row.patient_id,
            pixel_key=row.pixel_key,
            attributes=attributes[instance_id],
            relative_position=position,
            set_name=row.set_name,
            image_is_subject=row.image_is_subject,
        )


def _compact(values: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with keys interned, and what equals the series' first instance shared with it: memory only."""
    return {sys.intern(key): first[key] if first.get(key) == value else value for key, value in values.items()}


def _query(modality: str | None, sets: Collection[SetName] | None) -> Select[Any]:
    query = (
        select(
            Instance.instance_id,
            Instance.pixel_key,
            Instance.attributes,
            Series.series_id,
            Series.attributes.label("series_attributes"),
            Study.study_id,
            Patient.patient_id,
            Patient.set_name,
            Patient.image_is_subject,
        )
        .join(Series, Instance.series_id == Series.series_id)
        .join(Study, Series.study_id == Study.study_id)
        .join(Patient, Study.patient_id == Patient.patient_id)
        .order_by(Study.study_id, Series.series_id, Instance.instance_id)
        .execution_options(yield_per=2_000)
    )
    if modality is not None:
        query = query.where(Series.modality == modality)
    if sets is not None:
        # Nobody without an identity is trained on, even if a set was given to them by mistake.
        known = or_(Patient.identified, Patient.image_is_subject, Patient.set_name.not_in(NORMAL_SETS))
        query = query.where(Patient.set_name.in_(sorted(sets)), known)
    return query


def _series_rows(session: Session, query: Select[Any], study_ids: Collection[str] | None) -> Iterator[list[Row]]:
    parts = [query] if study_ids is None else [query.where(Study.study_id.in_(part)) for part in chunks(study_ids)]
    for part in parts:
        for _, rows in groupby(session.execute(part), key=lambda row: row.series_id):
            yield list(rows)


def _subjects(members: Iterable[list[SliceRef]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"instance": set(), "series": set(), "study": set(), "patient": set()}
    for refs in members:
        found["instance"].update(ref.instance_id for ref in refs)
        found["series"].add(refs[0].series_id)
        found["study"].add(refs[0].study_id)
        found["patient"].add(refs[0].patient_id)
    return found


def _labelled(refs: Iterable[SliceRef], standing: StandingLabels) -> Iterator[SliceRef]:
    for ref in refs:
        position = standing.relative_position(ref)
        yield replace(
            ref,
            label=standing.label(ref),
            mask_key=standing.mask_key(ref),
            relative_position=ref.relative_position if position is None else position,
        )


def _fits(ref: SliceRef, sets: Collection[SetName] | None, labels: Collection[Label] | None) -> bool:
    return (labels is None or ref.label in labels) and (sets is None or eligible(ref))
