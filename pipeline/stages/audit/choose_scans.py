"""Choice of the scans whose pixels retention may remove, and the reason why each of the others stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.erase_rows import find_shared_pixels
from pipeline.data.catalogue.patients import find_merged
from pipeline.data.catalogue.removed_pixels import list_patients_on_hold, read_removals
from pipeline.data.catalogue.review_schema import CLOSED, Decision, Draft, ReadingEntry
from pipeline.data.catalogue.schema import ExportRow, FindingRow, Instance, Patient, Series, SourceFile, Study
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.run.learned_patients import list_runs_behind, read_patients_of
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import list_registered, list_routes_with_champions
from pipeline.types import LABELLED_SETS, NORMAL_SETS

NEVER_SCORED = "no night has scored them"
HELD = "on legal hold"
YOUNGER = "younger than the policy says"
OPEN = "flagged or on the reading list, and not decided"
DRAFTED = "somebody is writing a decision"
UNSENT = "an object made from them has not been sent"
LEARNED = "a registered model in use learned from the patient"
MEASURED = "the patient is in develop, gate or test"


@dataclass(frozen=True, slots=True)
class ChosenScans:
    """Studies whose pixels go, and what is theirs; `stays` counts the scored studies that stay by their reason."""

    studies: tuple[str, ...]
    series: tuple[str, ...]
    pixels: tuple[str, ...]
    paths: tuple[str, ...]
    scored: int
    stays: Mapping[str, int]


def choose_scans(catalogue: Catalogue, settings: Settings, policy: RetentionPolicy, at: datetime) -> ChosenScans:
    """Return the scans whose pixels the policy no longer keeps at a time (UTC without time zone)."""
    if policy.pixels_days is None:
        return ChosenScans((), (), (), (), 0, {})
    learned = set() if policy.remove_learned else list_learned_patients(catalogue, settings)
    with catalogue.reading() as session:
        judged = _Judge.read(session, policy, learned, at - timedelta(days=policy.pixels_days))
        by_study: dict[str, list[FindingRow]] = {}
        for row in session.scalars(select(FindingRow).order_by(FindingRow.study_id)):
            by_study.setdefault(row.study_id, []).append(row)
        series_of = _list_series(session, set(by_study))
        removed = read_removals(session, [one for series in series_of.values() for one in series])
        latest = _read_arrivals(session, set(by_study))
        stays: Counter[str] = Counter()
        chosen = []
        for study_id, rows in by_study.items():
            if set(series_of.get(study_id, ())) <= set(removed):  # all of it went before
                continue
            reason = judged.find_reason(rows, latest.get(study_id))
            if reason:
                stays[reason] += 1
            else:
                chosen.append(study_id)
        stays[NEVER_SCORED] = _count_never_scored(session)
        series = {one for study in chosen for one in series_of[study]} - set(removed)
        return ChosenScans(
            tuple(chosen), tuple(sorted(series)), *list_pixels_and_paths(session, series), len(by_study), +stays
        )


@dataclass(frozen=True, slots=True)
class _Judge:
    """What decides whether a scan stays: read once for all scans."""

    before: datetime
    outcomes: Mapping[int, tuple[str, datetime]]
    listed: set[int]
    drafted: set[int]
    unsent: set[int]
    held: set[str]
    learned: set[str]
    measured: set[str]

    @classmethod
    def read(cls, session: Session, policy: RetentionPolicy, learned: set[str], before: datetime) -> _Judge:
        """Read decisions, lists, drafts, exports, holds and sets."""
        last = session.execute(select(Decision.finding_id, Decision.outcome, Decision.decided_at).where(is_last()))
        in_sets = select(Patient.patient_id).where(Patient.set_name.in_(LABELLED_SETS))
        return cls(
            before,
            {finding: (outcome, at) for finding, outcome, at in last},
            set(session.scalars(select(ReadingEntry.finding_id))),
            set(session.scalars(select(Draft.finding_id))),
            set(session.scalars(select(ExportRow.finding_id).where(ExportRow.state != "sent"))),
            list_patients_on_hold(session),
            learned,
            set() if policy.remove_measured else set(session.scalars(in_sets)),
        )

    def find_reason(self, rows: list[FindingRow], arrived: datetime | None) -> str:
        """Return why a study stays; "" if it may go. `arrived`: when its latest image came."""
        patients, findings = {row.patient_id for row in rows}, {row.id for row in rows}
        reasons = (
            (HELD, bool(patients & self.held)),
            (OPEN, any(self._is_open(row) for row in rows)),
            (DRAFTED, bool(findings & self.drafted)),
            (UNSENT, bool(findings & self.unsent)),
            (YOUNGER, max(self._times(rows, arrived)) > self.before),
            (LEARNED, bool(patients & self.learned)),
            (MEASURED, bool(patients & self.measured)),
        )
        return next((reason for reason, holds in reasons if holds), "")

    def _is_open(self, row: FindingRow) -> bool:
        if row.id in self.outcomes:
            return self.outcomes[row.id][0] not in CLOSED
        return bool(row.flagged) or row.flagged is None or row.id in self.listed

    def _times(self, rows: list[FindingRow], arrived: datetime | None) -> list[datetime]:
        decided = [self.outcomes[row.id][1] for row in rows if row.id in self.outcomes]
        return [*(row.scored_at for row in rows), *decided, *([arrived] if arrived else [])]


def _list_series(session: Session, studies: set[str]) -> dict[str, list[str]]:
    series: dict[str, list[str]] = {}
    for part in chunks(studies):
        for study_id, series_id in session.execute(
            select(Series.study_id, Series.series_id).where(Series.study_id.in_(part))
        ):
            series.setdefault(study_id, []).append(series_id)
    return series


def _read_arrivals(session: Session, studies: set[str]) -> dict[str, datetime]:
    """Return when the latest image of each study came: a later series has not been read with the others."""
    arrivals: dict[str, datetime] = {}
    for part in chunks(studies):
        query = select(Series.study_id, func.max(Instance.ingested_at)).join(Instance).group_by(Series.study_id)
        arrivals |= {study: at for study, at in session.execute(query.where(Series.study_id.in_(part)))}
    return arrivals


def _count_never_scored(session: Session) -> int:
    scored = select(FindingRow.study_id)
    query = select(func.count(func.distinct(Series.study_id))).where(Series.study_id.not_in(scored))
    return session.scalar(query.join(Study, Study.study_id == Series.study_id)) or 0


def list_pixels_and_paths(session: Session, series: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of pixels that no other series has, and the pseudonyms of the files that brought them."""
    keys: set[str] = set()
    paths: set[str] = set()
    for part in chunks(series):
        keys |= set(session.scalars(select(Instance.pixel_key).where(Instance.series_id.in_(part))))
        brought = select(SourceFile.path_id).join(Instance, Instance.instance_id == SourceFile.instance_id)
        paths |= set(session.scalars(brought.where(Instance.series_id.in_(part))))
    shared = find_shared_pixels(session, sorted(keys), series, set())
    return tuple(sorted(keys - shared)), tuple(sorted(paths))


def list_runs_in_use(settings: Settings) -> dict[str, RunFolder]:
    """Return the folders of the runs that an alias of the registry names, and of those whose models they use.

    Raises:
        ArtefactError: the registry does not respond.
    """
    runs: dict[str, RunFolder] = {}
    for route in list_routes_with_champions(settings):
        for run_id, version in list_registered(settings, route).items():
            if " " in version:  # a version with an alias
                runs |= {one.run_id: one for one in list_runs_behind(RunFolder(settings.runs / run_id))}
    return runs


def list_learned_patients(catalogue: Catalogue, settings: Settings) -> set[str]:
    """Return the patients that the models in use learned from or were calibrated on, by their present pseudonyms.

    Where a run did not record its patients, everybody in a set of normals counts.

    Raises:
        ArtefactError: the registry does not respond.
    """
    recorded = [read_patients_of(run) for run in list_runs_in_use(settings).values()]
    names = {name for sets in recorded for patients in sets.values() for name in patients}
    with Crosswalk.open(settings) as crosswalk, catalogue.reading() as session:
        present = {crosswalk.current_id(name) for name in names}
        present |= {find_merged(session, name) for name in present}
        if not all(recorded):
            present |= set(session.scalars(select(Patient.patient_id).where(Patient.set_name.in_(NORMAL_SETS))))
    return present
