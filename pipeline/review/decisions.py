"""Decisions: append-only, hash-chained, refused when stale, and stored once however often a button is pressed.

A decision, its line in the audit log, the resulting label, and the end of its lease and draft are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain, Verdict
from pipeline.data.catalogue.effective_decision import read_last_decision, standing
from pipeline.data.catalogue.review_schema import NEW, OUTCOMES, Decision, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow, now
from pipeline.data.catalogue.study_reading import read_study
from pipeline.data.labels.finding_codes import CodedFinding
from pipeline.data.labels.review_labels import label_study
from pipeline.review.audit import Audit
from pipeline.review.drafts import Typed, drop_signed
from pipeline.review.form_checks import check_repeated, check_seen, check_token
from pipeline.review.locks import SECOND_OPINION, check_free, drop_lease
from pipeline.review.permissions import Actor
from pipeline.review.refusals import BadInput, HeldByAnother, NotAllowed, check_id, unknown
from pipeline.review.region import check_region, check_there
from pipeline.review.second_opinions import require_told
from pipeline.review.text import clean_text


@dataclass(frozen=True, slots=True)
class Form:
    """A decision as the reader submits it.

    Attributes:
        finding_id: of the row.
        outcome: confirmed, dismissed, unsure or second-opinion.
        seen: id of the last decision when the form was rendered, 0 if there was no decision.
        token: created with the form, so that a double click is one decision: 8 to 64 letters, digits, - or _.
        code: code from the list of coded findings, or "".
        text: finding in free text.
        comment: anything else.
        region: `{"instance_id", "frame", "points": [[x, y], ...]}` in stored pixels, or None; other keys are ignored.
        windows: names of the one that sends it; `typed`: the form as it was typed, as drafts hold it.
    """

    finding_id: int
    outcome: str
    seen: int
    token: str
    code: str = ""
    text: str = ""
    comment: str = ""
    region: Mapping[str, Any] | None = None
    windows: tuple[str, ...] = ("",)
    typed: Typed = field(default_factory=Typed)


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision that was written and the row's new state; `repeated` if this token was used before (nothing was
    written).
    """

    id: int
    finding_id: int
    outcome: str
    state: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Told:
    """One row of a finding's history; `withdrawn`: a later row withdraws it; `withdraws`: id of the row that it
    withdraws; `heatmap`: it was made with the heatmap.
    """

    id: int
    outcome: str
    by: str
    at: datetime
    code: str
    meaning: str
    text: str
    comment: str
    region: dict[str, Any] | None
    withdraws: int | None
    withdrawn: bool
    heatmap: bool


class Decisions:
    """Write and read decisions.

    Args:
        has_pixels: returns whether the pixels of a key are in the store.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        chain: Chain,
        audit: Audit,
        policy: ReviewPolicy,
        coded: tuple[CodedFinding, ...],
        has_pixels: Callable[[str], bool],
    ) -> None:
        self._catalogue, self._chain, self._audit, self._policy = catalogue, chain, audit, policy
        self._coded = {finding.code: finding for finding in coded}
        self._has_pixels = has_pixels

    def coded(self) -> tuple[CodedFinding, ...]:
        """Return the coded list, in its order."""
        return tuple(self._coded.values())

    def decide(self, form: Form, actor: Actor) -> Decided:
        """Write a decision.

        Raises:
            BadInput, BadText: a value is not allowed; the message names it.
            UnknownFinding, ScanGone: the finding or its images do not exist.
            StaleDecision: somebody decided after the form was rendered.
            HeldByAnother: another reader has the scan, or the actor asked for a second opinion on it.
            NotAllowed: the actor may not decide.
        """
        actor.require("decide")
        values = self._checked(form)
        with self._catalogue.session() as session:
            finding = _finding(session, form.finding_id)
            if _is_used(session, form.token):
                values |= self._drawn(session, finding, form)
                return _repeat(session, form.token, form.finding_id, actor, values)
            last = self._check_turn(session, finding, form.seen, actor)
            check_there(session, finding, self._has_pixels)
            values |= self._drawn(session, finding, form)
            values["blind"] = _is_blind(session, finding)
            decided = self._write(session, finding, last, form.token, actor, values)
            drop_signed(session, finding.id, actor.name, form.typed, form.windows)
            return decided

    def undo(self, finding_id: int, seen: int, token: str, actor: Actor) -> Decided:
        """Withdraw the last decision by adding a row; the decision before it is valid again.

        Raises:
            StaleDecision, BadInput: another decision was made since, or none is left to withdraw.
            NotAllowed: it is somebody else's, and the actor is not a lead, or see `require_told`.
        """
        actor.require("decide")
        check_token(token)
        with self._catalogue.session() as session:
            if _is_used(session, token):
                return _repeat(session, token, finding_id, actor, {})
            finding, rows = _finding(session, finding_id), _rows(session, finding_id)
            last = rows[-1] if rows else None
            require_told(session, finding, actor.name)
            check_seen(session, finding, last, seen, actor.name)
            valid = standing(rows)
            if last is None or not valid or valid[-1].id != last.id:
                raise BadInput(
                    "There is no decision to withdraw: the last one was withdrawn already. Make a new decision instead."
                )
            if last.reader != actor.name and not actor.may("undo_any"):
                raise NotAllowed("Only the reader who decided, or a lead, may withdraw a decision. Ask one of them.")
            outcome = valid[-2].outcome if len(valid) > 1 else NEW
            values = {**_EMPTY, "outcome": outcome, "withdraws": last.id, "blind": False}
            return self._write(session, finding, last, token, actor, values)

    def read_history(self, finding_id: int, actor: Actor) -> list[Told]:
        """Return a finding's decisions, oldest first.

        While a second opinion is pending on any row of the study, a reader who may give it sees their own rows only,
        so that the second opinion is independent of the first.
        """
        actor.require("view")
        with self._catalogue.reading() as session:
            finding = _finding(session, finding_id)
            study = read_study(session, finding.study_id)
        rows = [row for row in study.decisions if row.finding_id == finding_id]
        withdrawn = {row.withdraws for row in rows}
        is_pending = any(outcome == SECOND_OPINION for outcome in study.outcomes().values())
        return [
            _told(row, row.id in withdrawn, study.saw_heatmap(row))
            for row in rows
            if not is_pending or row.reader == actor.name
        ]

    def verify(self, head: str = "") -> Verdict:
        """Check that every decision is unaltered."""
        with self._catalogue.reading() as session:
            return self._chain.verify(session, Decision, head)

    def _checked(self, form: Form) -> dict[str, Any]:
        """Check the values that need no database, and return the columns that the form fills."""
        check_token(form.token)
        if form.outcome not in OUTCOMES:
            raise BadInput(f"{form.outcome[:20]!r} is not an outcome; use one of {', '.join(OUTCOMES)}.")
        if form.code and form.code not in self._coded:
            raise BadInput(
                "The finding's code is not in the list, which may have changed. Load the page again and choose a code."
            )
        coded = self._coded.get(form.code)
        longest = self._policy.comment_characters
        return {
            **_EMPTY,
            "outcome": form.outcome,
            "code": coded.code if coded else "",
            "scheme": coded.scheme if coded else "",
            "meaning": coded.meaning if coded else "",
            "free_text": clean_text(form.text, "finding", longest),
            "comment": clean_text(form.comment, "comment", longest),
        }

    def _drawn(self, session: Session, finding: FindingRow, form: Form) -> dict[str, Any]:
        region, instance_id = check_region(session, finding, form.region, self._policy.region_points)
        return {"region": region, "region_instance_id": instance_id}

    def _check_turn(self, session: Session, finding: FindingRow, seen: int, actor: Actor) -> Decision | None:
        last = read_last_decision(session, finding.id)
        check_seen(session, finding, last, seen, actor.name)
        held = check_free(session, finding.id, actor.name, now())
        if held is not None and held.holder != actor.name:
            doing = "has" if held.assigned else "is reading"
            raise HeldByAnother(
                f"{held.holder} {doing} this scan since {held.taken_at:%H:%M} UTC. "
                "Ask them to release it, or wait until they have decided."
            )
        return last

    def _write(
        self,
        session: Session,
        finding: FindingRow,
        last: Decision | None,
        token: str,
        actor: Actor,
        values: dict[str, Any],
    ) -> Decided:
        row = {
            **values,
            "finding_id": finding.id,
            "number": last.number + 1 if last else 1,
            "token": token,
            "reader": actor.name,
            "decided_at": now(),
            **{name: getattr(finding, name) for name in ("run_id", "model_sha256", "score", "p_value")},
        }
        new = self._chain.append(session, Decision, row)
        action = "decision" if values["withdraws"] is None else "undo"
        self._audit.add(
            session, action, actor, f"finding:{finding.id}", {"decision": new, "outcome": values["outcome"]}
        )
        label_study(session, finding.study_id, actor.name)
        drop_lease(session, finding.id)
        return Decided(new, finding.id, values["outcome"], values["outcome"], False)


_EMPTY: dict[str, Any] = {
    **dict.fromkeys(("code", "scheme", "meaning", "free_text", "comment"), ""),
    **dict.fromkeys(("withdraws", "region", "region_instance_id")),
}


def _finding(session: Session, finding_id: int) -> FindingRow:
    row = session.get(FindingRow, check_id(finding_id))
    if row is None or session.get(ReadingEntry, finding_id) is None:
        raise unknown(finding_id)
    return row


def _is_blind(session: Session, finding: FindingRow) -> bool:
    """Return whether a reader decides blind: the row is blinded, and no row of its study ever showed a result."""
    entry = session.get(ReadingEntry, finding.id)
    return bool(entry and entry.blinded) and not read_study(session, finding.study_id).was_revealed()


def _rows(session: Session, finding_id: int) -> list[Decision]:
    query = select(Decision).where(Decision.finding_id == finding_id).order_by(Decision.number)
    return list(session.scalars(query))


def _is_used(session: Session, token: str) -> bool:
    return session.scalar(select(Decision.id).where(Decision.token == token)) is not None


def _repeat(session: Session, token: str, finding_id: int, actor: Actor, values: Mapping[str, Any]) -> Decided:
    """Return the decision that this token has made already; it must say and draw what `values` do."""
    row = session.scalars(select(Decision).where(Decision.token == token)).one()
    check_repeated(row, finding_id, actor.name, values)
    return Decided(row.id, row.finding_id, row.outcome, row.outcome, True)


def _told(row: Decision, withdrawn: bool, heatmap: bool) -> Told:
    region = None if row.region is None else {**row.region, "instance_id": row.region_instance_id}
    words = (row.code, row.meaning, row.free_text, row.comment)
    return Told(row.id, row.outcome, row.reader, row.decided_at, *words, region, row.withdraws, withdrawn, heatmap)
