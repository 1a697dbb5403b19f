"""Login: as slow for a wrong name as for a wrong password, and blocked for a while after some failures.

Every attempt is counted before its password is checked, in the transaction that finds it allowed, so that fifty
simultaneous attempts count as fifty. The counts are in the database and survive a restart. There are three: per name
and address, per address, and per name. The last allows ten times as many failures; otherwise, anybody who knows a name
could lock its owner out.

Behind a proxy or a hospital's gateway everybody may have one address, so one person's failures there would lock all
others out. A browser in which a user has logged in before therefore brings a token of that user, and its failures are
counted apart, under that token alone ("device cookies").
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Collection
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
Keys = tuple[str, str, str] | tuple[str]
FROM_ANYWHERE = 10  # times as many failures as from one address


class Logins:
    """Check the identity of users."""

    def __init__(
        self, catalogue: Catalogue, users: Users, audit: Audit, policy: ReviewPolicy, device_key: bytes
    ) -> None:
        self._catalogue, self._users, self._audit, self._policy = catalogue, users, audit, policy
        self._device_key = device_key

    def device_token(self, name: str) -> str:
        """Return the token of a browser in which this user has logged in."""
        return hmac.new(self._device_key, f"device\n{name}".encode(), hashlib.sha256).hexdigest()

    def log_in(self, name: str, password: str, address: str, devices: Collection[str] = ()) -> User:
        """Return the user with this name and password; `devices` are the tokens that the browser brings.

        Raises:
            TooManyFailures: wait before another attempt.
            LoginRefused: they do not match, or the user is disabled; the message does not say which.
        """
        user = self._users.get(name)
        typed = Actor(user.name if user else "", user.role if user else "", address)
        keys = _keys(user.name if user else name, address)
        if user is not None and any(hmac.compare_digest(self.device_token(user.name), one) for one in devices):
            keys = _device_keys(user.name)
        wait = self._count(keys)
        if wait:
            self._audit.record("login-limited", typed, detail={"wait_s": wait})
            raise TooManyFailures(wait)
        stored_hash = self._users.read_password_hash(user.name) if user else ""
        if not self._users.passwords.fits(password[: LONGEST_PASSWORD + 1], stored_hash) or user is None:
            self._audit.record("login-failed", typed)
            raise LoginRefused(WRONG)
        self._forget(keys)
        if self._users.passwords.is_dated(stored_hash):
            self._users.rehash(user.name, password)
        self._audit.record("login", typed)
        return user

    def log_in_by_proxy(self, name: str, address: str) -> User:
        """Return the user that a trusted proxy has authenticated.

        Raises:
            LoginRefused: the user does not exist or is disabled.
        """
        user = self._users.get(name)
        if user is None or user.disabled:
            self._audit.record("login-failed", Actor(user.name if user else "", "", address), detail={"proxy": True})
            raise LoginRefused("Nightread has no active user of the name that the proxy gave. Ask an admin to add one.")
        self._audit.record("login", user.at(address), detail={"proxy": True})
        return user

    def _count(self, keys: Keys) -> int:
        """Count an attempt under each key and return 0, or the seconds to wait if a key has too many failures."""
        moment, window = now(), timedelta(minutes=self._policy.failure_minutes)
        with self._catalogue.session() as session:
            session.execute(delete(LoginFailure).where(LoginFailure.failed_at <= moment - window))
            waits = [_wait(session, key, allowed, moment, window) for key, allowed in self._limits(keys)]
            if not any(waits):
                session.execute(insert(LoginFailure), [{"key": key, "failed_at": moment} for key in keys])
            return max(waits)

    def _limits(self, keys: Keys) -> list[tuple[str, int]]:
        a_name, an_address = self._policy.failures_a_name, self._policy.failures_an_address
        return list(zip(keys, (a_name, an_address, FROM_ANYWHERE * a_name), strict=False))

    def _forget(self, keys: Keys) -> None:
        """Clear the failures of this name; for the address, remove only this attempt, which succeeded."""
        pair, address, name = keys if len(keys) == 3 else (*keys, "", "")
        with self._catalogue.session() as session:
            session.execute(delete(LoginFailure).where(LoginFailure.key.in_((pair, name))))
            latest = session.scalar(select(func.max(LoginFailure.id)).where(LoginFailure.key == address))
            session.execute(delete(LoginFailure).where(LoginFailure.id == latest))


def _wait(session: Session, key: str, allowed: int, moment: datetime, window: timedelta) -> int:
    times = select(LoginFailure.failed_at).where(LoginFailure.key == key).order_by(LoginFailure.failed_at.desc())
    recent = list(session.scalars(times.limit(allowed)))
    return 0 if len(recent) < allowed else max(1, math.ceil((recent[-1] + window - moment).total_seconds()))


def _device_keys(name: str) -> tuple[str]:
    return (hashlib.sha256(f"device\n{name}".encode()).hexdigest(),)


def _keys(name: str, address: str) -> Keys:
    """Return hashes of (name and address, address, name); hashed, since a password may have been typed as the name."""
    name = name.casefold()[:256]
    parts = (f"both\n{name}\n{address}", f"address\n{address}", f"name\n{name}")
    pair, place, person = (hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest() for part in parts)
    return pair, place, person
