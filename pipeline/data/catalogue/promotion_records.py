"""Records of promotions and refusals: an append-only, hash-chained history of each route's champions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain, Verdict
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.schema import now

Action = Literal["promote", "override", "rollback", "refuse"]


@dataclass(frozen=True, slots=True)
class Champion:
    """A detector that is or was its route's champion: run id, registered version, SHA-256 of the detector."""

    run: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """One line of the history; `before` is None for a route's first champion, and for a refusal.

    The `champion` of a refusal is the challenger that was refused.
    """

    id: int
    at: datetime
    route: str
    action: Action
    champion: Champion
    before: Champion | None
    who: str
    why: str
    report_sha256: str

    @property
    def is_move(self) -> bool:
        """Whether the champion changed."""
        return self.action != "refuse"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the time with zone."""
        return asdict(self) | {"at": f"{self.at.isoformat()}Z"}


def add_promotion(session: Session, chain: Chain, record: PromotionRecord) -> int:
    """Append one line in a writing transaction, and return its id; the record's own `id` and `at` are not used."""
    before = record.before or Champion("", "", "")
    row = {
        "at": now(),
        "route": record.route,
        "action": record.action,
        "run": record.champion.run,
        "version": record.champion.version,
        "detector_sha256": record.champion.sha256,
        "replaced_run": before.run,
        "replaced_version": before.version,
        "replaced_sha256": before.sha256,
        "who": record.who,
        "why": record.why,
        "report_sha256": record.report_sha256,
    }
    return chain.append(session, PromotionRow, row)


def list_promotions(catalogue: Catalogue, route: str | None = None) -> list[PromotionRecord]:
    """Return the history, newest first, of one route or of all."""
    query = select(PromotionRow).order_by(PromotionRow.id.desc())
    with catalogue.reading() as session:
        return [_record(row) for row in session.scalars(query) if route in (None, row.route)]


def earlier_champions(
    records: list[PromotionRecord], present: str, with_rolled_back: bool = False
) -> Iterator[Champion]:
    """Yield the champions before the present one, the latest first, each once.

    Args:
        records: of one route, newest first.
        present: SHA-256 of the present champion's detector.
        with_rolled_back: also those that were rolled back and not promoted since, after all others: the last choice of
            a night that has nothing else, and nothing that a rollback leads to, or two of them would cancel out.
    """
    moves = [record for record in records if record.is_move]
    order = [one for record in moves for one in (record.champion, record.before) if one is not None]
    bad = _rolled_back(moves)
    seen = {present}
    for one in (*(one for one in order if one not in bad), *(bad if with_rolled_back else ())):
        if one.sha256 not in seen:
            seen.add(one.sha256)
            yield one


def _rolled_back(moves: list[PromotionRecord]) -> list[Champion]:
    """Return the champions that were rolled back and have not become champion since, the latest first."""
    bad: list[Champion] = []
    for record in reversed(moves):
        bad = [one for one in bad if one not in (record.champion, record.before)]
        if record.action == "rollback" and record.before is not None:
            bad.insert(0, record.before)
    return bad


def verify_promotions(catalogue: Catalogue, chain: Chain, head: str = "") -> Verdict:
    """Check the chain of promotions; see `Chain.verify`."""
    with catalogue.reading() as session:
        return chain.verify(session, PromotionRow, head)


def _record(row: PromotionRow) -> PromotionRecord:
    replaced = Champion(row.replaced_run, row.replaced_version, row.replaced_sha256) if row.replaced_run else None
    return PromotionRecord(
        row.id,
        row.at,
        row.route,
        row.action,  # type: ignore[arg-type]  # written by `add_promotion` alone
        Champion(row.run, row.version, row.detector_sha256),
        replaced,
        row.who,
        row.why,
        row.report_sha256,
    )
