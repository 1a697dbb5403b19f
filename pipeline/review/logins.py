"""Logging in: as slow for a wrong name as for a wrong password, and after some failures not at all for a while.

Every try is counted before its password is looked at, in the transaction that finds it allowed, so that fifty tries at
once are fifty tries. The count is in the database and survives a restart. Three counts: a name from one address, an
address, and a name from anywhere; the last allows ten times as many, or whoever knows a name could lock its owner out.
"""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import LoginFailure
from pipeline.data.catalogue.schema import now
from pipeline.review.audit import Audit
from pipeline.review.permissions import Actor
from pipeline.review.refusals import LoginRefused, TooManyFailures
from pipeline.review.users import LONGEST_PASSWORD, User, Users

WRONG = "The name or the password is wrong."
Keys = tuple[str, str, str]
FROM_ANYWHERE = 10  # times as many failures as from one address


class Logins:
    """Checks who somebody says they are."""

    def __init__(self, catalogue: Catalogue, users: Users, audit: Audit, policy: ReviewPolicy) -> None:
        self._catalogue, self._users, self._audit, self._policy = catalogue, users, audit, policy

    def log_in(self, name: str, password: str, address: str) -> User:
        """Return the user whose name and password these are.

        Raises:
            TooManyFailures: wait before another try.
            LoginRefused: they do not fit, or the user is disabled; which, is not said.
        """
        user = self._users.get(name)
        typed = Actor(user.name if user else "", user.role if user else "", address)
        keys = _keys(user.name if user else name, address)
        wait = self._count(keys)
        if wait:
            self._audit.record("login-limited", typed, detail={"wait_s": wait})
            raise TooManyFailures(wait)
        known = self._users.password_hash(user.name) if user else ""
        if not self._users.passwords.fits(password[: LONGEST_PASSWORD + 1], known) or user is None:
            self._audit.record("login-failed", typed)
            raise LoginRefused(WRONG)
        self._forget(keys)
        if self._users.passwords.is_dated(known):
            self._users.rehash(user.name, password)
        self._audit.record("login", typed)
        return user

    def vouched(self, name: str, address: str) -> User:
        """Return the user for whom a trusted proxy vouches.

        Raises:
            LoginRefused: nobody of that name, or a disabled user.
        """
        user = self._users.get(name)
        if user is None or user.disabled:
            self._audit.record("login-failed", Actor(user.name if user else "", "", address), detail={"proxy": True})
            raise LoginRefused("The proxy names a user whom Nightread does not know. An admin can add them.")
        self._audit.record("login", user.at(address), detail={"proxy": True})
        return user

    def _count(self, keys: Keys) -> int:
        """Note a try under each key and return 0, or the seconds to wait where one has had too many."""
        moment, window = now(), timedelta(minutes=self._policy.failure_minutes)
        with self._catalogue.session() as session:
            session.execute(delete(LoginFailure).where(LoginFailure.failed_at <= moment - window))
            waits = [_wait(session, key, allowed, moment, window) for key, allowed in self._limits(keys)]
            if not any(waits):
                session.execute(insert(LoginFailure), [{"key": key, "failed_at": moment} for key in keys])
            return max(waits)

    def _limits(self, keys: Keys) -> list[tuple[str, int]]:
        a_name, an_address = self._policy.failures_a_name, self._policy.failures_an_address
        return list(zip(keys, (a_name, an_address, FROM_ANYWHERE * a_name), strict=True))

    def _forget(self, keys: Keys) -> None:
        """Forget the failures of this name; of the address only this one try, which was none."""
        pair, address, name = keys
        with self._catalogue.session() as session:
            session.execute(delete(LoginFailure).where(LoginFailure.key.in_((pair, name))))
            latest = session.scalar(select(func.max(LoginFailure.id)).where(LoginFailure.key == address))
            session.execute(delete(LoginFailure).where(LoginFailure.id == latest))


def _wait(session: Session, key: str, allowed: int, moment: datetime, window: timedelta) -> int:
    times = select(LoginFailure.failed_at).where(LoginFailure.key == key).order_by(LoginFailure.failed_at.desc())
    recent = list(session.scalars(times.limit(allowed)))
    return 0 if len(recent) < allowed else max(1, math.ceil((recent[-1] + window - moment).total_seconds()))


def _keys(name: str, address: str) -> Keys:
    """Return hashes of (name and address, address, name): the box for the name may have been given the password."""
    name = name.casefold()[:256]
    parts = (f"both\n{name}\n{address}", f"address\n{address}", f"name\n{name}")
    pair, place, person = (hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest() for part in parts)
    return pair, place, person
