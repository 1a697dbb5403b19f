"""Select slices from the catalogue, in order, by route, set and label, and list the series that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.refuse_again import refuse_removed
from pipeline.data.catalogue.removed_pixels import read_removals
from pipeline.data.catalogue.schema import Patient, Series, Study
from pipeline.data.labels.effective_label import StandingLabels
from pipeline.data.sets.order_stacks import order_stacks
from pipeline.data.sets.routes import NotScoredCode, NotScoredReason, Route, route_of
from pipeline.data.sets.splits import eligible
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import REGULAR, Allowed
from pipeline.errors import ConfigError, RejectionCode
from pipeline.types import LABELLED_SETS, NORMAL_SETS, Label, SetName, SliceRef

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue

ALL_SETS: tuple[SetName, ...] = (*NORMAL_SETS, *LABELLED_SETS)


@dataclass(frozen=True, slots=True)
class NotScoredSeries:
    """A series that cannot be used, with the stable code and the sentence that say why."""

    series_id: str
    study_id: str
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Result of a selection.

    Attributes:
        slices: the chosen slices, series by series, each in geometric order.
        not_scored: series that match but that no route takes, or whose geometry is refused, with their codes.
        members: all slices of each selected series, selected or not, as the basis of its statistics; by stack
            (`SliceRef.stack_id`) where a series has several.
    """

    slices: tuple[SliceRef, ...]
    not_scored: tuple[NotScoredSeries, ...]
    members: Mapping[str, tuple[SliceRef, ...]]

    def left_out(self) -> str:
        """Return a sentence on matching series that cannot be used, with a leading space; "" without any."""
        counts = Counter(series.code for series in self.not_scored)
        named = ", ".join(f"{number} {code}" for code, number in counts.most_common())
        return f" Series that could not be used: {named}." if named else ""

    def whole(self) -> Selection:
        """Return the selection without series that are only partly selected; they are listed as partly-normal."""
        count = Counter(ref.stack_id for ref in self.slices)
        partly = {key: refs for key, refs in self.members.items() if count[key] < len(refs)}
        sentence = (
            "Only {0} of {1} slices may enter a set of normals, but a volume enters it whole. Label the others normal."
        )
        listed = [
            NotScoredSeries(
                refs[0].series_id,
                refs[0].study_id,
                RejectionCode.PARTLY_NORMAL.value,
                sentence.format(count[key], len(refs)),
            )
            for key, refs in partly.items()
        ]
        return Selection(
            tuple(ref for ref in self.slices if ref.stack_id not in partly),
            (*self.not_scored, *listed),
            {key: refs for key, refs in self.members.items() if key not in partly},
        )


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
    allowed: Allowed = REGULAR,
    sets_of: Mapping[str, SetName] | None = None,
    unlabelled: bool = False,
) -> Selection:
    """Select slices. Every argument narrows the selection; None does not.

    Args:
        catalogue: the open catalogue.
        modality: DICOM modality.
        route: name of the route that must take the series; needs `routes`.
        routes: all routes, in order of precedence; if given, series that no route takes are listed in `not_scored`.
        sets: sets of the patients. With them the law of the sets holds (`splits.eligible`): train, validate and
            calibrate give only normal slices of identified patients. Without them everything is selected, as for
            scoring.
        labels: labels to select.
        study_ids: pseudonyms of studies.
        allowed: irregularities that a stack may have without being refused.
        sets_of: sets per patient (pseudonym) instead of the stored ones, for cross-fitting (`folds.read_sets_under`).
        unlabelled: every slice of the patients in `sets`, whatever its label, for training without labels.

    Raises:
        ConfigError: `route` is not among `routes`.
    """
    if route is not None and route not in {one.name for one in routes}:
        raise ConfigError(f"The route {route!r} is not among {[one.name for one in routes]}; choose one of those.")
    not_scored: list[NotScoredSeries] = []
    with catalogue.reading() as session:
        in_sets = _asked(
            _series(session, modality, sets if sets_of is None else ALL_SETS, study_ids), sets, sets_of or {}
        )
        on_route = _without_removed(session, _on_route(in_sets, route, routes, not_scored), not_scored)
        ordered: dict[str, list[SliceRef]] = {}
        for row, result in order_stacks(session, on_route, allowed, lambda own: _reason(own, route, routes)):
            if isinstance(result, NotScoredReason):
                not_scored.append(NotScoredSeries(row.series_id, row.study_id, result.code, result.sentence))
            else:
                ordered[result[0].stack_id] = result
        standing = StandingLabels.read(session, _subjects(ordered.values()))
    members = {stack_id: tuple(_labelled(refs, standing, sets_of or {})) for stack_id, refs in ordered.items()}
    law = None if unlabelled else sets
    chosen = tuple(ref for refs in members.values() for ref in refs if _fits(ref, law, labels))
    stacks = {ref.stack_id for ref in chosen}
    return Selection(chosen, tuple(not_scored), {key: refs for key, refs in members.items() if key in stacks})


def list_patients_on(catalogue: Catalogue, route: str, routes: Sequence[Route]) -> set[str]:
    """Return the patients (pseudonyms) who have a series that the route takes, labelled or not."""
    with catalogue.reading() as session:
        return {row.patient_id for row in _on_route(_series(session, None, None, None), route, routes, [])}


def count_studies_by_route(catalogue: Catalogue, routes: Sequence[Route]) -> Counter[str]:
    """Return the number of studies with a series that the route takes, per route."""
    pairs: set[tuple[str, str]] = set()
    with catalogue.reading() as session:
        for row in _series(session, None, None, None):
            route = route_of(InstanceAttributes.from_json(row.attributes), routes)
            if isinstance(route, Route):
                pairs.add((route.name, row.study_id))
    return Counter(name for name, _ in pairs)


def _series(
    session: Session,
    modality: str | None,
    sets: Collection[SetName] | None,
    study_ids: Collection[str] | None,
) -> Iterator[Row]:
    query = (
        select(
            Series.series_id,
            Series.attributes,
            Study.study_id,
            Patient.patient_id,
            Patient.set_name,
            Patient.image_is_subject,
        )
        .join(Study, Series.study_id == Study.study_id)
        .join(Patient, Study.patient_id == Patient.patient_id)
        .order_by(Study.study_id, Series.series_id)
    )
    if modality is not None:
        query = query.where(Series.modality == modality)
    if sets is not None:
        # Unidentified patients are never used for training, even if a set was assigned to them by mistake.
        usable = or_(Patient.identified, Patient.image_is_subject, Patient.set_name.not_in(NORMAL_SETS))
        query = query.where(Patient.set_name.in_(sorted(sets)), usable)
    parts = [query] if study_ids is None else [query.where(Study.study_id.in_(part)) for part in chunks(study_ids)]
    return chain.from_iterable(session.execute(part) for part in parts)


def _asked(series: Iterable[Row], sets: Collection[SetName] | None, sets_of: Mapping[str, SetName]) -> Iterator[Row]:
    """Yield the series of the requested sets, with `sets_of` taking precedence over stored sets."""
    return (row for row in series if sets is None or sets_of.get(row.patient_id, row.set_name) in sets)


def _on_route(
    series: Iterable[Row], route: str | None, routes: Sequence[Route], not_scored: list[NotScoredSeries]
) -> list[Row]:
    """Return the series that the route reads, decided by the attributes that all instances of a series share.

    Of a series that mixes images of different meaning, each stack decides for itself (`order_stacks`).
    """
    if not routes:
        return list(series)
    on_route = []
    for row in series:
        result = route_of(InstanceAttributes.from_json(row.attributes), routes)
        if isinstance(result, NotScoredReason) and result.code == NotScoredCode.MIXED_CONTENT:
            on_route.append(row)
        elif isinstance(result, NotScoredReason):
            not_scored.append(NotScoredSeries(row.series_id, row.study_id, result.code, result.sentence))
        elif route is None or result.name == route:
            on_route.append(row)
    return on_route


def _without_removed(session: Session, series: list[Row], not_scored: list[NotScoredSeries]) -> list[Row]:
    """Return the series that still have pixels; the others are listed with the day on which retention removed them."""
    removals = read_removals(session, [row.series_id for row in series])
    studies = {row.series_id: row.study_id for row in series}
    reasons = {series_id: refuse_removed(at, studies[series_id]) for series_id, at in removals.items()}
    not_scored += [
        NotScoredSeries(row.series_id, row.study_id, reasons[row.series_id].code.value, reasons[row.series_id].sentence)
        for row in series
        if row.series_id in reasons
    ]
    return [row for row in series if row.series_id not in reasons]


def _reason(attributes: InstanceAttributes, route: str | None, routes: Sequence[Route]) -> NotScoredReason | None:
    """Return why the route does not read a stack with these attributes; None if it does."""
    if not routes:
        return None
    result = route_of(attributes, routes)
    if isinstance(result, NotScoredReason):
        return result
    if route is None or result.name == route:
        return None
    return NotScoredReason(NotScoredCode.NO_ROUTE.value, f"The route {result.name} reads this stack, not {route}.")


def _subjects(members: Iterable[list[SliceRef]]) -> dict[str, set[str]]:
    subjects: dict[str, set[str]] = {"instance": set(), "series": set(), "study": set(), "patient": set()}
    for refs in members:
        subjects["instance"].update(ref.instance_id for ref in refs)
        subjects["series"].add(refs[0].series_id)
        subjects["study"].add(refs[0].study_id)
        subjects["patient"].add(refs[0].patient_id)
    return subjects


def _labelled(refs: Iterable[SliceRef], standing: StandingLabels, sets_of: Mapping[str, SetName]) -> Iterator[SliceRef]:
    for ref in refs:
        position = standing.relative_position(ref)
        yield replace(
            ref,
            set_name=sets_of.get(ref.patient_id, ref.set_name),
            label=standing.label(ref),
            mask_key=standing.mask_key(ref),
            dismissed_flag=standing.dismissed_flag(ref),
            relative_position=ref.relative_position if position is None else position,
        )


def _fits(ref: SliceRef, sets: Collection[SetName] | None, labels: Collection[Label] | None) -> bool:
    return (labels is None or ref.label in labels) and (sets is None or eligible(ref))
