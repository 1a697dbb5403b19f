"""Audit log of who did what, when and from where: append-only, hash-chained, and free of patient identifiers.

Subjects are our own row numbers and names (`finding:12`, `run:score-...`, `user:anna`). Pseudonyms would have to be
rewritten when the key is rotated, but nothing in this log is ever rewritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain, Verdict
from pipeline.data.catalogue.review_schema import AuditEntry, Decision
from pipeline.data.catalogue.schema import now
from pipeline.review.permissions import Actor
from pipeline.review.refusals import BadInput

_ACTION = re.compile(r"[a-z][a-z-]{0,31}")
_SUBJECT = re.compile(r"[a-z]{1,16}:[\w.@+-]{1,63}|")
_NAME = re.compile(r"[a-z][a-z_]{0,31}")
_PSEUDONYM = re.compile(r"[0-9a-f]{12}")
MOST_LINES = 1_000
_WORD = 60  # longest text in `detail`, in characters
DECIDED = ("decision", "undo")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log; times are UTC without zone."""

    id: int
    at: datetime
    user: str
    role: str
    address: str
    action: str
    subject: str
    detail: dict[str, Any]

    def to_json(self) -> str:
        """Return the line as JSON, its time with zone."""
        return json.dumps(asdict(self) | {"at": f"{self.at.isoformat()}Z"}, ensure_ascii=False)


class Audit:
    """Writes and reads the log."""

    def __init__(self, catalogue: Catalogue, chain: Chain) -> None:
        self._catalogue, self._chain = catalogue, chain

    def record(self, action: str, actor: Actor, subject: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """Write one line; it is durable when this returns.

        Raises:
            BadInput: the line could identify a patient, or the action is not a valid name.
        """
        with self._catalogue.session() as session:
            self.add(session, action, actor, subject, detail)

    def add(
        self, session: Session, action: str, actor: Actor, subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write one line inside a transaction, so that an action and its line are committed together or not at all."""
        row: dict[str, Any] = {
            "at": now(),
            "user_name": actor.name[:64],
            "role": actor.role[:16],
            "address": _address(actor.address),
        }
        row |= {"action": action, "subject": subject, "detail": dict(detail or {})}
        _check(action, subject, row["detail"])
        self._chain.append(session, AuditEntry, row)

    def list_entries(
        self,
        limit: int = 100,
        before: int | None = None,
        action: str = "",
        user: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Entry]:
        """Return lines, newest first; `before` is the id of the last line already listed."""
        query = _narrowed(select(AuditEntry), action, user, since, until).order_by(AuditEntry.id.desc())
        query = query.limit(max(1, min(limit, MOST_LINES)))
        with self._catalogue.reading() as session:
            rows = session.scalars(query if before is None else query.where(AuditEntry.id < min(before, 2**31 - 1)))
            return [_entry(row) for row in rows]

    def write_lines(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[str]:
        """Yield the log as JSON lines, oldest first, in constant memory."""
        query = _narrowed(select(AuditEntry), "", "", since, until).order_by(AuditEntry.id)
        with self._catalogue.reading() as session:
            for row in session.scalars(query.execution_options(yield_per=1_000)):
                yield _entry(row).to_json()

    def verify(self, head: str = "") -> Verdict:
        """Check the chain, and that every decision recorded in the log still exists."""
        with self._catalogue.reading() as session:
            verdict = self._chain.verify(session, AuditEntry, head)
            logged = session.scalar(select(func.count()).where(AuditEntry.action.in_(DECIDED)))
            stored = session.scalar(select(func.count()).select_from(Decision))
        if logged == stored:
            return verdict
        problem = f"the audit log records {logged} decisions, but {stored} are stored"
        return Verdict(verdict.rows, verdict.head, (*verdict.problems, problem))


def _narrowed(
    query: Select[tuple[AuditEntry]], action: str, user: str, since: datetime | None, until: datetime | None
) -> Select[tuple[AuditEntry]]:
    if action:
        query = query.where(AuditEntry.action == action)
    if user:
        query = query.where(AuditEntry.user_name == user)
    if since:
        query = query.where(AuditEntry.at >= since)
    return query.where(AuditEntry.at < until) if until else query


def _entry(row: AuditEntry) -> Entry:
    return Entry(row.id, row.at, row.user_name, row.role, row.address, row.action, row.subject, row.detail)


def _address(address: str) -> str:
    return "".join(character for character in address if character.isprintable())[:64]


def _check(action: str, subject: str, detail: Mapping[str, Any]) -> None:
    if not _ACTION.fullmatch(action):
        raise BadInput(
            f"{action[:40]!r} is not an action name. Use lower-case words joined by hyphens, at most 32 characters."
        )
    kind, _, name = subject.partition(":")
    if not _SUBJECT.fullmatch(subject) or (kind != "user" and _PSEUDONYM.search(name)):
        raise BadInput("The subject of an audit line must be `kind:name` without pseudonyms, such as finding:12.")
    for name, value in detail.items():
        fits = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and _short(value))
        if not (_NAME.fullmatch(name) and fits):
            raise BadInput(
                f"The detail {name[:40]!r} of an audit line must be a number or a few plain words; "
                "long texts and pseudonyms are not allowed."
            )


def _short(word: str) -> bool:
    return len(word) <= _WORD and word.isprintable() and not _PSEUDONYM.search(word)
