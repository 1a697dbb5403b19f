"""Leases of scans: a scan is leased to one reader for a while, renewed while they look, and free again afterwards.

A reader may reserve a scan beforehand, and a lead may reserve it for a reader: such a lease is an assignment. It lasts
a shift, and leaving the scan's page does not end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import Decision, Lease, ReadingEntry, User
from pipeline.data.catalogue.schema import FindingRow, now
from pipeline.review.audit import Audit
from pipeline.review.permissions import PERMISSIONS, Actor
from pipeline.review.refusals import BadInput, HeldByAnother, check_id, unknown

SECOND_OPINION = "second-opinion"


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease: its holder, whether that is the current user, its start, and its end unless renewed (UTC)."""

    mine: bool
    holder: str
    since: datetime
    until: datetime
    assigned: bool = False


class Locks:
    """Lease scans; writing transactions are serialised, so that no two readers take the same scan."""

    def __init__(self, catalogue: Catalogue, audit: Audit, policy: ReviewPolicy) -> None:
        self._catalogue, self._audit = catalogue, audit
        self._most_open, self._most_assigned = policy.open_scans, policy.assigned_scans
        self._term, self._shift = timedelta(minutes=policy.lease_minutes), timedelta(hours=policy.assign_hours)

    def take(self, finding_id: int, actor: Actor) -> Claim:
        """Take a scan, or renew one's lease of it; if another reader has it, only return their claim.

        Raises:
            UnknownFinding: the finding is not on the list.
            HeldByAnother: the actor asked for a second opinion on it, which must come from somebody else.
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
                self._free_oldest(session, finding_id, actor, moment)
                self._audit.add(session, "lock-take", actor, f"finding:{finding_id}")
            return _claim(lease, actor.name)

    def release(self, finding_id: int, actor: Actor) -> bool:
        """Release a scan whose page was left; return False if the actor does not have it, or it is assigned to them."""
        with self._catalogue.session() as session:
            held = find_live_lease(session, finding_id, now())
            if held is None or held.holder != actor.name or held.assigned:
                return False
            session.delete(held)
            self._audit.add(session, "lock-release", actor, f"finding:{finding_id}")
            return True

    def assign(self, finding_id: int, reader: str, actor: Actor) -> Claim:
        """Assign a scan to oneself or, as a lead, to anybody who may decide, replacing an earlier assignment.

        Raises:
            UnknownFinding: the finding is not on the list.
            HeldByAnother: somebody else is reading it, it is assigned to them, or that reader asked for a second
                opinion.
            BadInput: no user of that name may decide, or this one has assigned themselves as many as they may.
            NotAllowed: the actor may not assign.
        """
        actor.require("decide" if reader == actor.name else "assign")
        moment = now()
        with self._catalogue.session() as session:
            if reader != actor.name:
                _check_reader(session, reader)
            held = check_free(session, finding_id, reader, moment)
            if held is not None and held.holder != reader and not (held.assigned and actor.may("assign")):
                raise HeldByAnother(
                    f"{held.holder} has this scan until {held.expires_at:%H:%M} UTC. Wait until then, or ask them."
                )
            if reader == actor.name and not actor.may("assign"):
                self._check_share(session, finding_id, reader, moment)
            until = moment + self._shift
            lease = Lease(finding_id=finding_id, holder=reader, taken_at=moment, expires_at=until, assigned=True)
            session.merge(lease)
            self._audit.add(session, "assign", actor, f"finding:{finding_id}", {"to": reader[:60]})
            return _claim(lease, actor.name)

    def _free_oldest(self, session: Session, finding_id: int, actor: Actor, moment: datetime) -> None:
        """Free the scan that this reader opened first, if they have too many open: nobody keeps the whole list."""
        session.flush()
        others = _live(actor.name, moment).where(Lease.assigned.is_(False), Lease.finding_id != finding_id)
        opened = list(session.scalars(others.order_by(Lease.taken_at.desc(), Lease.finding_id)))
        for lease in opened[self._most_open - 1 :]:
            session.delete(lease)
            self._audit.add(session, "lock-release", actor, f"finding:{lease.finding_id}")

    def _check_share(self, session: Session, finding_id: int, reader: str, moment: datetime) -> None:
        """Raise BadInput if this reader has assigned themselves as many scans as one may."""
        held = _live(reader, moment).where(Lease.assigned.is_(True), Lease.finding_id != finding_id)
        if len(list(session.scalars(held))) >= self._most_assigned:
            raise BadInput(
                f"You have assigned yourself {self._most_assigned} scans, the most that one reader may keep. Decide or "
                "unassign some of them, or ask a lead to assign you more."
            )

    def unassign(self, finding_id: int, actor: Actor) -> bool:
        """End one's own assignment or, as a lead, anybody's; return False if there is nothing to end."""
        with self._catalogue.session() as session:
            held = find_live_lease(session, finding_id, now())
            if held is None or not held.assigned or (held.holder != actor.name and not actor.may("assign")):
                return False
            session.delete(held)
            self._audit.add(session, "unassign", actor, f"finding:{finding_id}")
            return True

    def find_holder(self, finding_id: int, actor: Actor | None = None) -> Claim | None:
        """Return the current holder of a scan, or None."""
        with self._catalogue.reading() as session:
            held = find_live_lease(session, finding_id, now())
            return None if held is None else _claim(held, actor.name if actor else "")


def check_free(session: Session, finding_id: int, name: str, moment: datetime) -> Lease | None:
    """Return the live lease of a finding that is on the list.

    Raises:
        UnknownFinding: the finding is not on the list.
        HeldByAnother: this reader asked for a second opinion on it, or on another row of its study.
    """
    if session.get(ReadingEntry, check_id(finding_id)) is None:
        raise unknown(finding_id)
    if any(row.reader == name for row in _second_opinions(session, finding_id)):
        raise HeldByAnother(
            f"{name} asked for a second opinion on this study, which another reader must give. "
            "Withdraw the request to read it again."
        )
    return find_live_lease(session, finding_id, moment)


def _second_opinions(session: Session, finding_id: int) -> list[Decision]:
    """Return the pending requests for a second opinion on any row of a finding's study."""
    study = select(FindingRow.study_id).where(FindingRow.id == finding_id).scalar_subquery()
    query = select(Decision).join(FindingRow, FindingRow.id == Decision.finding_id).where(is_last())
    return list(session.scalars(query.where(FindingRow.study_id == study, Decision.outcome == SECOND_OPINION)))


def find_live_lease(session: Session, finding_id: int, moment: datetime) -> Lease | None:
    """Return the lease of a finding, or None if it has expired."""
    return session.scalar(select(Lease).where(Lease.finding_id == check_id(finding_id), Lease.expires_at > moment))


def _live(holder: str, moment: datetime) -> Select[tuple[Lease]]:
    return select(Lease).where(Lease.holder == holder, Lease.expires_at > moment)


def drop_lease(session: Session, finding_id: int) -> None:
    """End a finding's lease after a decision."""
    session.execute(delete(Lease).where(Lease.finding_id == finding_id))


def _claim(lease: Lease, name: str) -> Claim:
    return Claim(lease.holder == name, lease.holder, lease.taken_at, lease.expires_at, lease.assigned)


def _check_reader(session: Session, name: str) -> None:
    user = session.get(User, name)
    if user is None or user.disabled or "decide" not in PERMISSIONS.get(user.role, frozenset()):
        raise BadInput("A scan can only be assigned to a user who may log in and decide. Choose one from the list.")
