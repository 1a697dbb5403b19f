"""List every series, stack by stack, with its route, kind, label and set, and the reason why it is not learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.schema import Instance, Patient, Series, Study
from pipeline.data.labels.effective_label import StandingLabels
from pipeline.data.sets.order_stacks import order_stacks, share_attributes
from pipeline.data.sets.routes import NotScoredReason, Route, route_of
from pipeline.data.sets.series_kind import kind_of
from pipeline.data.sets.splits import eligible
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import REGULAR, Allowed
from pipeline.types import NORMAL_SETS, SetName, SliceRef

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue


class UnusedCode(StrEnum):
    """Reason why a series that its route can read is in no set."""

    NO_PATIENT_ID = "no-patient-id"
    NO_LABEL = "no-label"
    NO_SET = "no-set"
    DISMISSED = "dismissed-flag"
    NOT_NORMAL = "not-normal"


_SENTENCES = {
    UnusedCode.NO_PATIENT_ID: "Patient ID is empty, so the person may be in another set under a name. It is scored, "
    "but never learned from: give each person an ID of their own when you de-identify.",
    UnusedCode.NO_LABEL: "Nothing says whether it is normal: nightread labels import FILE.csv",
    UnusedCode.NO_SET: "The patient gets a set with the next nightread train on this route.",
    UnusedCode.DISMISSED: "It is normal only because a reader dismissed its flag.",
    UnusedCode.NOT_NORMAL: "It is labelled abnormal since its patient entered a set of normals.",
}


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """A series, or one stack of it.

    Attributes:
        series_id, study_id, patient_id: pseudonyms.
        route: that reads it, "" for none.
        kind: of its images (`SeriesKind`).
        stack: what tells it from the other stacks of its series.
        label: normal, abnormal or unknown, "mixed" where slices differ.
        set_name: of the patient.
        slices: all slices; `used`: those that the set may use.
        code, sentence: why none may be used; "" where they are.
        refs: the slices, with their labels.
    """

    series_id: str
    study_id: str
    patient_id: str
    route: str
    kind: str
    stack: str
    label: str
    set_name: SetName | None
    slices: int
    used: int
    code: str
    sentence: str
    refs: tuple[SliceRef, ...]

    @property
    def labelled(self) -> bool:
        """Whether a label says what it is."""
        return self.label != "unknown"

    def to_json(self) -> dict[str, Any]:
        """Return plain values without the slices."""
        names = ("series_id", "study_id", "route", "kind", "stack", "slices", "used", "label", "set_name", "code")
        return {name: getattr(self, name) for name in names} | {"reason": self.sentence}


def list_series(
    catalogue: Catalogue,
    routes: Sequence[Route],
    allowed: Allowed = REGULAR,
    sets_of: Mapping[str, SetName] | None = None,
) -> list[ListedSeries]:
    """Return all series of the catalogue in the order of studies; one that holds several stacks is listed by stack.

    Args:
        catalogue: the open catalogue.
        routes: all routes.
        allowed: irregularities that a stack may have without being refused.
        sets_of: sets per patient instead of the stored ones, as under a fold.
    """
    with catalogue.reading() as session:
        rows = _rows(session)
        by_id = {row.series_id: row for row in rows}
        results = [(row.series_id, result) for row, result in order_stacks(session, rows, allowed, _never)]
        refused = {series_id for series_id, result in results if isinstance(result, NotScoredReason)}
        images = _read_images(session, [by_id[series_id] for series_id in sorted(refused)])
        parts = [
            (by_id[series_id], result, images[series_id] if isinstance(result, NotScoredReason) else result)
            for series_id, result in results
        ]
        standing = StandingLabels.read(session, _subjects(refs for _, _, refs in parts))
    return [_listed(*part, standing, routes, sets_of or {}) for part in parts]


def _never(attributes: InstanceAttributes) -> None:
    """Refuse no stack: the route of each is asked afterwards."""


def _rows(session: Session) -> Sequence[Row]:
    columns = (Series.series_id, Series.attributes, Study.study_id, Patient.patient_id, Patient.set_name)
    query = select(*columns, Patient.image_is_subject, Patient.identified)
    query = query.join(Study, Series.study_id == Study.study_id).join(Patient, Study.patient_id == Patient.patient_id)
    return session.execute(query.order_by(Study.study_id, Series.series_id)).all()


def _read_images(session: Session, series: Sequence[Row]) -> dict[str, list[SliceRef]]:
    """Return the first frames of series without an order, whose labels count all the same."""
    images: dict[str, list[SliceRef]] = {row.series_id: [] for row in series}
    by_id = {row.series_id: row for row in series}
    columns = (Instance.series_id, Instance.instance_id, Instance.pixel_key, Instance.attributes)
    for part in chunks(list(images)):
        for one in session.execute(select(*columns).where(Instance.series_id.in_(part))):
            row = by_id[one.series_id]
            ids = (one.instance_id, 0, one.series_id, row.study_id, row.patient_id, one.pixel_key, one.attributes)
            images[one.series_id].append(SliceRef(*ids, 0.5, image_is_subject=row.image_is_subject))
    return images


def _subjects(parts: Iterable[Sequence[SliceRef]]) -> dict[str, set[str]]:
    subjects: dict[str, set[str]] = {"instance": set(), "series": set(), "study": set(), "patient": set()}
    for ref in (ref for refs in parts for ref in refs):
        for level, names in subjects.items():
            names.add(getattr(ref, f"{level}_id"))
    return subjects


def _listed(
    row: Row,
    result: Sequence[SliceRef] | NotScoredReason,
    refs: Sequence[SliceRef],
    standing: StandingLabels,
    routes: Sequence[Route],
    sets_of: Mapping[str, SetName],
) -> ListedSeries:
    set_name = sets_of.get(row.patient_id, row.set_name)
    labelled = tuple(
        replace(ref, set_name=set_name, label=standing.label(ref), dismissed_flag=standing.dismissed_flag(ref))
        for ref in refs
    )
    attributes = _attributes(row, refs)
    route = route_of(attributes, routes)
    refusal = next((one for one in (route, result) if isinstance(one, NotScoredReason)), None)
    usable = row.identified or row.image_is_subject or set_name not in (*NORMAL_SETS, None)
    used = 0 if refusal or not usable else sum(map(eligible, labelled))
    code = "" if used or refusal else _why(labelled, usable)
    return ListedSeries(
        series_id=row.series_id,
        study_id=row.study_id,
        patient_id=row.patient_id,
        route=route.name if isinstance(route, Route) else "",
        kind=kind_of(attributes).value,
        stack=_stack(refs),
        label=_label(labelled),
        set_name=set_name,
        slices=len(refs),
        used=used,
        code=refusal.code if refusal else code,
        sentence=refusal.sentence if refusal else _SENTENCES.get(UnusedCode(code), "") if code else "",
        refs=labelled,
    )


def _attributes(row: Row, refs: Sequence[SliceRef]) -> InstanceAttributes:
    """Return what the images of a series share, or those of a stack: a map among the echoes is not a series of maps."""
    if not _stack(refs):
        return InstanceAttributes.from_json(row.attributes)
    return share_attributes((InstanceAttributes.from_json(ref.attributes), ref.frame) for ref in refs)


def _stack(refs: Sequence[SliceRef]) -> str:
    return refs[0].stack if refs else ""


def _label(refs: Sequence[SliceRef]) -> str:
    labels = {ref.label for ref in refs}
    return labels.pop() if len(labels) == 1 else "mixed" if labels else "unknown"


def _why(refs: Sequence[SliceRef], usable: bool) -> str:
    if all(ref.label == "unknown" for ref in refs):
        return UnusedCode.NO_LABEL.value
    if not usable:
        return UnusedCode.NO_PATIENT_ID.value
    if all(ref.dismissed_flag for ref in refs if ref.label == "normal") and any(ref.dismissed_flag for ref in refs):
        return UnusedCode.DISMISSED.value
    return (UnusedCode.NO_SET if refs[0].set_name is None else UnusedCode.NOT_NORMAL).value


def count_causes(listed: Iterable[ListedSeries]) -> Counter[str]:
    """Return the number of series that are not used, by code."""
    return Counter(one.code for one in listed if one.code)


def used_slices(listed: Iterable[ListedSeries], set_name: SetName) -> Iterator[SliceRef]:
    """Yield the slices that a set may use."""
    for one in listed:
        if one.used and one.set_name == set_name:
            yield from filter(eligible, one.refs)
