"""Watch over drift: evidence of a change per route, scanner and protocol, from the catalogue's findings alone.

Nothing is stored but notices: every state is computed again from the findings, so a night that was stopped loses
nothing, and the same findings give the same state. A patient counts once per stream, with the first study. Within a day
scans are ordered by the patient's draw, which has nothing to do with their scores and survives a key rotation.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from cachetools import LRUCache
from sqlalchemy import func, select

from pipeline.charts.evidence_chart import DayEvidence
from pipeline.config import Settings, find_shipped_file, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.notices import Severity, update_notices
from pipeline.data.catalogue.operations_schema import ScanMeasures
from pipeline.data.catalogue.schema import FindingRow, Patient, RunRow, Series
from pipeline.monitoring.attribution import Moved, attribute
from pipeline.monitoring.config import DriftPolicy
from pipeline.monitoring.cusum import Chart
from pipeline.monitoring.martingale import alarm_level
from pipeline.monitoring.streams import Evidence, Observation, find_signals, gather_evidence

POLICY = "configs/monitoring/drift.yaml"
ATTRIBUTES = ("scanner", "manufacturer", "kernel", "site", "sex", "rows", "columns", "bits_stored", "body_part", "view")

_RECENT: LRUCache[tuple[Any, ...], DriftWatch] = LRUCache(maxsize=8)
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Scanned:
    """One patient's first study on a route: what the tests of drift look at."""

    study: str
    day: date
    draw: float
    score: float
    model: str
    route: str
    scanner: str
    protocol: str
    facts: dict[str, Any]

    def observe(self, value: float) -> Observation:
        """Return the scan with a value as an observation."""
        digest = hashlib.sha256(f"{self.draw!r} {self.route}".encode()).digest()
        return Observation(self.day, value, (int.from_bytes(digest[:7], "big") + 0.5) / 2**56, self.model)


@dataclass(frozen=True, slots=True)
class WatchedStream:
    """A route, or one scanner or protocol of it, and the evidence that it has changed."""

    route: str
    group: str
    evidence: Evidence
    moved: tuple[Moved, ...]

    @property
    def name(self) -> str:
        """The route, and the group where there is one."""
        return f"{self.route}, {self.group}" if self.group else self.route

    def chart(self) -> DayEvidence:
        """Return the data of the chart."""
        e = self.evidence
        title = f"Evidence of drift on {self.name}"
        return DayEvidence(title=title, days=e.days, capital=e.capital, level=e.level, alarm=e.alarm, since=e.since)

    def sentence(self) -> str:
        """Return the state in words."""
        e = self.evidence
        now = 10 ** e.capital[-1] if e.capital else 1.0
        if e.alarm is None:
            return f"{self.name}: no change shown in {e.scans} scans (capital {now:.3g}, alarm at {10**e.level:,.0f})."
        moved = " ".join(one.sentence() for one in self.moved) or "No attribute or statistic is shown to have moved."
        return (
            f"{self.name}: scores have changed since about {e.since}, alarm on {e.alarm} (capital above "
            f"{10**e.level:,.0f}). {moved}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        moved = [one.to_json() for one in self.moved]
        return {"route": self.route, "group": self.group, **self.evidence.to_json(), "moved": moved}


@dataclass(frozen=True, slots=True)
class WatchedStatistic:
    """CUSUM of one statistic of a route: its promise, and the days of its signals."""

    route: str
    statistic: str
    scans: int
    signals: tuple[date, ...]
    statement: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values, days as text."""
        return asdict(self) | {"signals": [str(day) for day in self.signals]}


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """All streams of a workspace."""

    streams: tuple[WatchedStream, ...]
    statistics: tuple[WatchedStatistic, ...]
    policy: DriftPolicy

    @property
    def changed(self) -> tuple[WatchedStream, ...]:
        """The streams with an open alarm."""
        return tuple(one for one in self.streams if one.evidence.alarm is not None)

    def sentences(self) -> list[str]:
        """Return the lines of the night's report."""
        if not self.streams:
            return []
        watched = "1 stream is" if len(self.streams) == 1 else f"{len(self.streams)} streams are"
        promise = (
            f"Drift: {watched} watched; the probability that any of them ever raises a false alarm is at most "
            f"{self.policy.alpha:.0%}."
        )
        last = max((day for one in self.streams for day in one.evidence.days), default=None)
        recent = [
            f"{one.route}: CUSUM of {one.statistic} signalled on {one.signals[-1]}. {one.statement}"
            for one in self.statistics
            if one.signals and last is not None and (last - one.signals[-1]).days < self.policy.recent_nights
        ]
        return [promise, *(f"**Changed**: {one.sentence()}" for one in self.changed), *recent]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "policy": self.policy.model_dump(mode="json"),
            "streams": [one.to_json() for one in self.streams],
            "statistics": [one.to_json() for one in self.statistics],
        }


def read_policy(settings: Settings) -> DriftPolicy:
    """Return the policy of the workspace (`drift.yaml`), or the shipped one."""
    own = settings.workspace / "drift.yaml"
    return load_config(own if own.exists() else find_shipped_file(POLICY), DriftPolicy)


def watch_drift(catalogue: Catalogue, policy: DriftPolicy, hidden_runs: Collection[str] = ()) -> DriftWatch:
    """Return the state of every stream.

    Args:
        catalogue: an open catalogue.
        policy: error rates and streams.
        hidden_runs: scoring runs that are left out, since a reader still reads their scans blind.
    """
    scans = read_scans(catalogue, hidden_runs)
    grouped = sorted(_streams(scans), key=lambda item: (_watched_since(item[2], policy), item[0], item[1]))
    long = [item for item in grouped if not item[1] or len(item[2]) >= policy.least_scans]
    measures = _read_measures(catalogue)
    streams = [
        _watch(route, group, part, alarm_level(policy.alpha, number), policy, measures)
        for number, (route, group, part) in enumerate(long, start=1)
    ]
    return DriftWatch(tuple(streams), tuple(_statistics(scans, measures, policy)), policy)


def recall_watch(catalogue: Catalogue, policy: DriftPolicy, hidden_runs: Collection[str] = ()) -> DriftWatch:
    """Return the same as `watch_drift`, for pages: computed once as long as no finding is added or scored again."""
    with catalogue.reading() as session:
        state = session.execute(select(func.count(), func.max(FindingRow.scored_at), func.max(FindingRow.id))).one()
    key = (str(catalogue.engine.url), policy.fingerprint(), frozenset(hidden_runs), *state)
    with _LOCK:
        if key not in _RECENT:
            _RECENT[key] = watch_drift(catalogue, policy, hidden_runs)
        return _RECENT[key]


def update_drift(catalogue: Catalogue, policy: DriftPolicy) -> DriftWatch:
    """Return the state of every stream, and raise or clear a notice per route."""
    watch = watch_drift(catalogue, policy)
    present: dict[str, tuple[Severity, str]] = {}
    for one in watch.changed:
        present.setdefault(f"drift:{one.route}", ("warning", one.sentence()))
    update_notices(catalogue, "drift:", present)
    return watch


def read_scans(catalogue: Catalogue, hidden_runs: Collection[str] = ()) -> list[Scanned]:
    """Return each patient's first study on each route and model, in the order of the tests."""
    query = (
        select(FindingRow, Patient.draw)
        .join(RunRow, RunRow.run_id == FindingRow.run_id)
        .join(Patient, Patient.patient_id == FindingRow.patient_id)
        .where(RunRow.kind == "score", RunRow.state == "done", FindingRow.run_id.not_in(list(hidden_runs)))
    )
    with catalogue.reading() as session:
        rows = session.execute(query).all()
        ids = {str(row.evidence[0]["series_id"]) for row, _ in rows if row.evidence}
        attributes: dict[str, dict[str, Any]] = {}
        for part in chunks(ids):
            listed = session.scalars(select(Series).where(Series.series_id.in_(part)))
            attributes |= {one.series_id: one.attributes for one in listed}
    ordered = sorted(rows, key=lambda item: (item[0].scored_at.date(), item[1], item[0].study_id))
    scans, seen = [], set()
    for row, draw in ordered:
        if (row.patient_id, row.route) in seen:
            continue
        seen.add((row.patient_id, row.route))
        series = str(row.evidence[0]["series_id"]) if row.evidence else ""
        scans.append(_scanned(row, draw, attributes.get(series, {})))
    return scans


def _scanned(row: FindingRow, draw: float, attributes: dict[str, Any]) -> Scanned:
    facts = {name: attributes[name] for name in ATTRIBUTES if isinstance(attributes.get(name), (str, int))}
    protocol = " ".join(map(str, attributes.get("description") or ()))
    scanner = str(attributes.get("scanner") or "")
    facts |= {"protocol": protocol}
    day = row.scored_at.date()
    return Scanned(row.study_id, day, draw, row.score, row.model_sha256, row.route, scanner, protocol, facts)


def _streams(scans: Sequence[Scanned]) -> Iterator[tuple[str, str, list[Scanned]]]:
    """Yield route, group and scans of every route, and of every scanner and protocol of it."""
    groups: dict[tuple[str, str], list[Scanned]] = defaultdict(list)
    for scan in scans:
        groups[scan.route, ""].append(scan)
        groups[scan.route, f"scanner {scan.scanner or 'not stated'}"].append(scan)
        groups[scan.route, f"protocol {scan.protocol or 'not stated'}"].append(scan)
    for (route, group), part in groups.items():
        yield route, group, part


def _watched_since(scans: Sequence[Scanned], policy: DriftPolicy) -> date:
    """Return the day from which a stream is watched: it numbers the streams, and never changes afterwards."""
    return scans[min(policy.least_scans, len(scans)) - 1].day if len(scans) >= policy.least_scans else date.max


def _watch(
    route: str,
    group: str,
    scans: list[Scanned],
    level: float,
    policy: DriftPolicy,
    measures: dict[tuple[str, str, str], dict[str, float]],
) -> WatchedStream:
    evidence = gather_evidence([scan.observe(scan.score) for scan in scans], level)
    moved: list[Moved] = []
    if evidence.since_scan is not None:
        sides = scans[: evidence.since_scan], scans[evidence.since_scan :]
        before, after = (_columns(side, measures) for side in sides)
        moved = attribute(before, after, policy.attribution_alpha)
    return WatchedStream(route, group, evidence, tuple(moved))


def _columns(scans: Sequence[Scanned], measures: dict[tuple[str, str, str], dict[str, float]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    for scan in scans:
        for name, value in {**scan.facts, **measures.get((scan.study, scan.route, scan.model), {})}.items():
            columns[name].append(value)
    return columns


def _read_measures(catalogue: Catalogue) -> dict[tuple[str, str, str], dict[str, float]]:
    with catalogue.reading() as session:
        rows = session.scalars(select(ScanMeasures))
        return {(row.study_id, row.route, row.model_sha256): dict(row.measures) for row in rows}


def _statistics(
    scans: Sequence[Scanned], measures: dict[tuple[str, str, str], dict[str, float]], policy: DriftPolicy
) -> Iterator[WatchedStatistic]:
    """Yield the CUSUM of the score and of every measure of each route."""
    chart = Chart.design(policy.arl0_scans, policy.allowance)
    values: dict[tuple[str, str], list[Observation]] = defaultdict(list)
    for scan in scans:
        row = {"score": scan.score, **measures.get((scan.study, scan.route, scan.model), {})}
        for name, value in row.items():
            values[scan.route, name].append(scan.observe(value))
    for (route, name), observations in sorted(values.items()):
        signals = tuple(find_signals(observations, chart))
        yield WatchedStatistic(route, name, len(observations), signals, chart.statement(policy.shift))
