"""Who reads what: a scan is lent to one reader for a while, renewed while they look, and free again afterwards.

A reader may keep a scan beforehand, and a lead may keep it for a reader: such a lease is an assignment. It lasts a
shift, and leaving the scan's page does not end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import last_decision
from pipeline.data.catalogue.review_schema import Lease, ReadingEntry, User
from pipeline.data.catalogue.schema import now
from pipeline.review.audit import Audit
from pipeline.review.permissions import PERMISSIONS, Actor
from pipeline.review.refusals import BadInput, HeldByAnother, checked_id, unknown

SECOND_OPINION = "second-opinion"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease: whose, whether it is the asker's, since when, and until when unless it is renewed (UTC)."""

    mine: bool
    holder: str
    since: datetime
    until: datetime
    assigned: bool = False


class Locks:
    """Lends scans; writers wait for each other, so that no two take one at once."""

    def __init__(self, catalogue: Catalogue, audit: Audit, policy: ReviewPolicy) -> None:
        self._catalogue, self._audit = catalogue, audit
        self._term, self._shift = timedelta(minutes=policy.lease_minutes), timedelta(hours=policy.assign_hours)

    def take(self, finding_id: int, actor: Actor) -> Claim:
        """Take a scan, or renew one's lease of it; where another reader has it, only their claim comes back.

        Raises:
            UnknownFinding: it is not on the list.
            HeldByAnother: the actor asked for a second opinion on it, which somebody else must give.
            NotAllowed: the actor may not decide.
        """
        actor.require("decide")
        moment = now()
        with self._catalogue.session() as session:
            held = check_free(session, finding_id, actor.name, moment)
            if held is not None and held.holder != actor.name:
                return _claim(held, actor.name)
            lease = held or Lease(finding_id=finding_id, holder=actor.name, taken_at=moment, expires_at=moment)
            lease.expires_at = max(lease.expires_at, moment + self._term)
            session.merge(lease)
            if held is None:
                self._audit.add(session, "lock-take", actor, f"finding:{finding_id}")
            return _claim(lease, actor.name)

    def release(self, finding_id: int, actor: Actor) -> bool:
        """Give a scan back whose page was left; False where the actor does not have it, or it is assigned to them."""
        with self._catalogue.session() as session:
            held = live_lease(session, finding_id, now())
            if held is None or held.holder != actor.name or held.assigned:
                return False
            session.delete(held)
            self._audit.add(session, "lock-release", actor, f"finding:{finding_id}")
            return True

    def assign(self, finding_id: int, reader: str, actor: Actor) -> Claim:
        """Keep a scan for a reader: oneself or, for a lead, anybody who decides, in the place of whom it was kept for.

        Raises:
            UnknownFinding: it is not on the list.
            HeldByAnother: somebody else reads it, or it is kept for them, or that reader asked for a second opinion.
            BadInput: nobody of that name may decide.
            NotAllowed: the actor may not.
        """
        actor.require("decide" if reader == actor.name else "assign")
        moment = now()
        with self._catalogue.session() as session:
            if reader != actor.name:
                _check_reader(session, reader)
            held = check_free(session, finding_id, reader, moment)
            if held is not None and held.holder != reader and not (held.assigned and actor.may("assign")):
                raise HeldByAnother(f"{held.holder} has this scan until {held.expires_at:%H:%M} UTC.")
            until = moment + self._shift
            lease = Lease(finding_id=finding_id, holder=reader, taken_at=moment, expires_at=until, assigned=True)
            session.merge(lease)
            self._audit.add(session, "assign", actor, f"finding:{finding_id}", {"to": reader[:60]})
            return _claim(lease, actor.name)

    def unassign(self, finding_id: int, actor: Actor) -> bool:
        """End an assignment of one's own or, for a lead, anybody's; False where there is none."""
        with self._catalogue.session() as session:
            held = live_lease(session, finding_id, now())
            if held is None or not held.assigned or (held.holder != actor.name and not actor.may("assign")):
                return False
            session.delete(held)
            self._audit.add(session, "unassign", actor, f"finding:{finding_id}")
            return True

    def holder(self, finding_id: int, actor: Actor | None = None) -> Claim | None:
        """Return who has a scan now, None where nobody has."""
        with self._catalogue.reading() as session:
            held = live_lease(session, finding_id, now())
            return None if held is None else _claim(held, actor.name if actor else "")

    def held_by(self, name: str) -> int:
        """Return how many scans a reader has now."""
        with self._catalogue.reading() as session:
            query = select(func.count()).select_from(Lease).where(Lease.holder == name, Lease.expires_at > now())
            return session.scalar(query) or 0


def check_free(session: Session, finding_id: int, name: str, moment: datetime) -> Lease | None:
    """Return the live lease of a finding that is on the list.

    Raises:
        UnknownFinding: it is not.
        HeldByAnother: this reader asked for a second opinion.
    """
    if session.get(ReadingEntry, checked_id(finding_id)) is None:
        raise unknown(finding_id)
    last = last_decision(session, finding_id)
    if last is not None and last.outcome == SECOND_OPINION and last.reader == name:
        raise HeldByAnother(
            f"{name} asked for a second opinion on this scan: another reader gives it. "
            "Withdraw the request to read it again."
        )
    return live_lease(session, finding_id, moment)


def live_lease(session: Session, finding_id: int, moment: datetime) -> Lease | None:
    """Return the lease of a finding, None where it has run out."""
    return session.scalar(select(Lease).where(Lease.finding_id == checked_id(finding_id), Lease.expires_at > moment))


def drop_lease(session: Session, finding_id: int) -> None:
    """End a finding's lease: it was decided."""
    session.execute(delete(Lease).where(Lease.finding_id == finding_id))


def _claim(lease: Lease, name: str) -> Claim:
    return Claim(lease.holder == name, lease.holder, lease.taken_at, lease.expires_at, lease.assigned)


def _check_reader(session: Session, name: str) -> None:
    user = session.get(User, name)
    if user is None or user.disabled or "decide" not in PERMISSIONS.get(user.role, frozenset()):
        raise BadInput("A scan is assigned to somebody who may log in and decide. Choose one of the list.")
