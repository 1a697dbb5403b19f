"""Entries of the reading list at the end of a scoring run: all flagged findings, and a random sample of the others.

Whoever reads only flagged scans never learns what was missed. So a random sample of a run's unflagged findings is read
too, unmarked (each with the same probability, independently: Bernoulli sampling), and that probability is stored:
`evaluate --prospective` weights by its inverse. A sampled finding takes the place of a randomly drawn flagged one, and
the rows of a run are written in random order, so that neither position nor row order reveals it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.review_schema import ReadingDraw, ReadingEntry, ReadingFrame
from pipeline.data.catalogue.schema import FindingRow, Series, Study, now

UNCALIBRATED = 1.0  # place of a flagged finding without a p-value: after all findings with one
NO_EXAMPLE = 0.05  # if nothing was ever flagged, sampled findings get places below this p-value, like flagged ones


@dataclass(frozen=True, slots=True)
class Drawn:
    """Entries of one run: the numbers of its flagged, unflagged and sampled findings."""

    run_id: str
    flagged: int
    unflagged: int
    sampled: int
    probability: float


def sample_probability(flagged: int, unflagged: int, policy: ReviewPolicy) -> float:
    """Return the probability with which each unflagged finding of a run is read.

    On average `sample_share` of them are read, or `sample_least` where that is more, but then at most half as many as
    are flagged, and one: in a short list, more would cost the readers too much.
    """
    if not unflagged:
        return 0.0
    least = min(policy.sample_least, max(1.0, flagged / 2))
    return min(1.0, max(policy.sample_share, least / unflagged))


def draw_reading_lists(
    catalogue: Catalogue, policy: ReviewPolicy, rng: np.random.Generator | None = None
) -> list[Drawn]:
    """Draw for every scoring run with findings and without a draw, and return the draws; repeating adds nothing.

    `rng` is for tests. By default the operating system's randomness decides, and no seed is stored that reveals it.
    """
    rng = rng or np.random.default_rng()
    with catalogue.session() as session:
        runs = session.scalars(select(FindingRow.run_id).distinct().order_by(FindingRow.run_id)).all()
        done = set(session.scalars(select(ReadingDraw.run_id)))
        return [_draw(session, run_id, policy, rng) for run_id in runs if run_id not in done]


def _draw(session: Session, run_id: str, policy: ReviewPolicy, rng: np.random.Generator) -> Drawn:
    """Add one run. A finding framed by an earlier run keeps its probability; if newly flagged, it enters the list."""
    rows = list(session.scalars(select(FindingRow).where(FindingRow.run_id == run_id).order_by(FindingRow.id)))
    framed = _known(session, ReadingFrame.finding_id, rows)
    listed = _known(session, ReadingEntry.finding_id, rows)
    fresh = [row for row in rows if row.id not in framed]
    quiet = [row for row in fresh if not row.flagged]
    probability = sample_probability(len(fresh) - len(quiet), len(quiet), policy)
    sampled = chosen(quiet, probability, rng)
    size = len(sampled)
    flagged = [row for row in rows if row.flagged and row.id not in listed]
    counts = {"flagged": len(fresh) - len(quiet), "unflagged": len(quiet), "sampled": size}
    session.execute(
        insert(ReadingDraw),
        {"run_id": run_id, "share": policy.sample_share, "least": policy.sample_least, "drawn_at": now(), **counts},
    )
    _insert(session, ReadingFrame, (_frame(row, run_id, probability, sampled) for row in fresh))
    taken = list(session.scalars(select(ReadingEntry.place))) if size and not flagged else []
    placed = places(flagged, [row for row in quiet if row.id in sampled], taken, rng)
    # Blinded where nobody was sampled, too: else a list of one scan would tell that it is flagged.
    entries = _entries(session, placed, blinded=bool(policy.sample_share or policy.sample_least))
    _insert(session, ReadingEntry, [entries[int(index)] for index in rng.permutation(len(entries))])
    return Drawn(run_id, probability=probability, **counts)


def chosen(unflagged: Sequence[FindingRow], probability: float, rng: np.random.Generator) -> set[int]:
    """Return the ids of a sample that each finding enters with the same probability, whatever becomes of the others.

    So the number of sampled scans is unknown, too: a reader who has met as many as there can be would know the rest.
    """
    return {row.id for row, draw in zip(unflagged, rng.random(len(unflagged)), strict=True) if draw < probability}


def _known(session: Session, column: Any, rows: Sequence[FindingRow]) -> set[int]:
    ids = [row.id for row in rows]
    return {value for part in _parts(ids) for value in session.scalars(select(column).where(column.in_(part)))}


def _parts(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + 5_000] for start in range(0, len(ids), 5_000))


def _frame(row: FindingRow, run_id: str, probability: float, sampled: set[int]) -> dict[str, Any]:
    certain = bool(row.flagged)
    return {
        "finding_id": row.id,
        "run_id": run_id,
        "flagged": certain,
        "probability": 1.0 if certain else probability,
        "selected": certain or row.id in sampled,
    }


Place = tuple[FindingRow, float, float]


def places(
    flagged: Sequence[FindingRow], sampled: Sequence[FindingRow], taken: Sequence[float], rng: np.random.Generator
) -> list[Place]:
    """Give every row a place (the p-value) and a tie-breaker: flagged by rank, sampled beside a random flagged one.

    Where the run flagged nothing, sampled rows get places among those `taken` in the list.
    """
    order = sorted(flagged, key=lambda row: (_place(row), -row.score, row.id))
    count = max(len(order), 1)
    ranked = [(row, _place(row), (rank + rng.random()) / count) for rank, row in enumerate(order)]
    if not order:
        among = taken or list(rng.random(len(sampled)) * NO_EXAMPLE)
        return [(row, float(rng.choice(among)), rng.random()) for row in sampled]
    beside = rng.integers(len(order), size=len(sampled))
    near = [(row, _place(order[j]), (j + rng.random()) / count) for row, j in zip(sampled, beside, strict=True)]
    return ranked + near


def _place(row: FindingRow) -> float:
    return UNCALIBRATED if row.p_value is None else row.p_value


def _entries(session: Session, placed: Sequence[Place], blinded: bool) -> list[dict[str, Any]]:
    """Return the rows of the list, with the scan's attributes copied from the series that the detector read."""
    series = {row.id: str(row.evidence[0].get("series_id", "")) if row.evidence else "" for row, _, _ in placed}
    scans: dict[str, tuple[str, str]] = {}
    for part in chunks(set(series.values())):
        query = select(Series.series_id, Series.modality, Series.attributes).where(Series.series_id.in_(part))
        scans |= {key: (modality, _body_part(attributes)) for key, modality, attributes in session.execute(query)}
    arrived: dict[str, Any] = {}
    for part in chunks({row.study_id for row, _, _ in placed}):
        query = select(Study.study_id, Study.first_seen_at).where(Study.study_id.in_(part))
        arrived |= {study: at for study, at in session.execute(query)}
    rows = []
    for row, place, tie in placed:
        modality, body_part = scans.get(series[row.id], ("", ""))
        about = {"modality": modality, "body_part": body_part, "route": row.route, "model_sha256": row.model_sha256}
        when = {"arrived_at": arrived[row.study_id], "listed_at": now()}
        rows.append({"finding_id": row.id, "place": place, "tie": float(tie), "blinded": blinded, **about, **when})
    return rows


def _body_part(attributes: dict[str, Any]) -> str:
    return str(attributes.get("body_part") or "")[:64]


def _insert(session: Session, table: type[Any], rows: Iterable[dict[str, Any]]) -> None:
    if values := list(rows):
        session.execute(insert(table), values)
