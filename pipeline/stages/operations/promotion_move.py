"""One move of a route's alias `champion`, recorded and made in one transaction, and moves that nobody recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.promotion_forms import SeenState, add_form, check_current, find_written
from pipeline.data.catalogue.promotion_records import Action, Champion, PromotionRecord, add_promotion, list_promotions
from pipeline.data.catalogue.schema import now
from pipeline.errors import PromotionRefused
from pipeline.tracking.registry import find_champion, promote, read_aliases
from pipeline.types import RunRef

NAME_CHARACTERS, REASON_CHARACTERS = 64, 1000
Check = Callable[[RunRef | None], None]


@dataclass(frozen=True, slots=True)
class Approval:
    """The person who approves a move, and why; both are recorded for good."""

    who: str
    why: str

    def __post_init__(self) -> None:
        for name, text, most in (("name", self.who, NAME_CHARACTERS), ("reason", self.why, REASON_CHARACTERS)):
            if not text.strip() or len(text) > most or not text.isprintable():
                raise PromotionRefused(
                    f"The {name} {text[:20]!r} cannot be recorded: it must have 1 to {most} printable characters, not "
                    f"{len(text)}. Write another {name}."
                )


@dataclass(frozen=True, slots=True)
class Move:
    """Where the alias goes; for a refusal, the challenger that it does not go to."""

    route: str
    action: Action
    to: Champion


def make_move(
    catalogue: Catalogue,
    settings: Settings,
    move: Move,
    approval: Approval,
    report: str,
    seen: SeenState | None = None,
    check: Check | None = None,
) -> str | None:
    """Record a move and make it, in one transaction: if the registry refuses, nothing is recorded.

    Args:
        catalogue: where the record goes.
        settings: where the registry is.
        move: what is recorded; a refusal moves nothing.
        approval: who, and why.
        report: SHA-256 of the gate report; "" without one.
        seen: the browser's form, if one was sent; one that has been recorded before does nothing.
        check: called with the champion of before, and raises if the move is not allowed any more.

    Returns the version of the champion before.
    """
    chain = Chain.open(settings, catalogue)
    with catalogue.session() as session:
        champion, version = find_champion(settings, move.route), read_aliases(settings, move.route).get("champion")
        before = None if champion is None else Champion(Path(champion.path).name, version or "", champion.sha256)
        record = PromotionRecord(
            0, now(), move.route, move.action, move.to, before, approval.who.strip(), approval.why.strip(), report
        )
        record = record if record.is_move else replace(record, before=None)
        if seen is not None:
            if find_written(session, seen, record) is not None:
                return version
            check_current(session, seen, move.route, version or "")
        if check is not None:
            check(champion)
        number = add_promotion(session, chain, record)
        if seen is not None:
            add_form(session, seen, number)
        session.flush()
        if record.is_move:
            promote(settings, move.route, move.to.version)
    return version


def list_outside_moves(settings: Settings, catalogue: Catalogue) -> list[str]:
    """Return a sentence for each route whose alias is not where the last recorded move left it."""
    sentences, seen = [], set()
    for record in list_promotions(catalogue):
        if record.route in seen or not record.is_move:
            continue
        seen.add(record.route)
        version = read_aliases(settings, record.route).get("champion")
        if version != record.champion.version:
            sentences.append(
                f"The champion of {record.route} is version {version or 'none'}, but the last recorded move made it "
                f"version {record.champion.version}: somebody moved it in MLflow, without a record."
            )
    return sentences
