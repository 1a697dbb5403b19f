"""Server-side sessions: a random token in the browser, its hash in the database, an idle limit and an age limit."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, or_, select, update

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import User as UserRow
from pipeline.data.catalogue.review_schema import UserSession
from pipeline.data.catalogue.schema import now
from pipeline.review.audit import Audit
from pipeline.review.users import User, Users

if TYPE_CHECKING:
    from sqlalchemy import CursorResult

_TOUCH = timedelta(seconds=60)  # a session is updated at most this often


@dataclass(frozen=True, slots=True)
class Session:
    """A valid session: its user, the token that its forms must carry, and its latest end."""

    user: User
    csrf: str
    expires_at: datetime


class Sessions:
    """Create, find and end sessions."""

    def __init__(self, catalogue: Catalogue, users: Users, audit: Audit, policy: ReviewPolicy) -> None:
        self._catalogue, self._users, self._audit = catalogue, users, audit
        self._idle, self._age = timedelta(minutes=policy.idle_minutes), timedelta(hours=policy.session_hours)

    def create(self, user: User, address: str, old_token: str = "") -> str:
        """Create a session with a new random token (256 bits) and return it; end `old_token`'s and delete
        expired ones.
        """
        token, moment = secrets.token_urlsafe(32), now()
        times = {"created_at": moment, "seen_at": moment, "expires_at": moment + self._age}
        row = {"token_hash": _hash(token), "user_name": user.name, "address": address[:64], **times}
        dead = or_(UserSession.expires_at <= moment, UserSession.seen_at <= moment - self._idle)
        with self._catalogue.session() as session:
            session.execute(delete(UserSession).where(or_(dead, UserSession.token_hash == _hash(old_token))))
            session.execute(insert(UserSession), row)
        return token

    def find(self, token: str) -> Session | None:
        """Return the session of a token; None if it is unknown, idle for too long, too old, or its user is disabled."""
        moment = now()
        query = select(UserSession, UserRow).join(UserRow, UserRow.name == UserSession.user_name)
        with self._catalogue.reading() as session:
            match = session.execute(query.where(UserSession.token_hash == _hash(token))).first()
        if match is None:
            return None
        row, user = match
        if user.disabled or row.expires_at <= moment or row.seen_at <= moment - self._idle:
            return None
        if row.seen_at <= moment - _TOUCH:
            self._touch(row.token_hash, moment)
        return Session(User(user.name, user.role, user.disabled, user.created_at), _csrf(token), row.expires_at)

    def end(self, token: str, address: str = "") -> None:
        """End a session, if it exists."""
        with self._catalogue.session() as session:
            row = session.get(UserSession, _hash(token))
            if row is None:
                return
            user = session.get(UserRow, row.user_name)
            session.delete(row)
            if user is not None:
                self._audit.add(session, "logout", User(user.name, user.role, False, user.created_at).at(address))

    def end_all(self, name: str) -> int:
        """End every session of a user and return their number."""
        with self._catalogue.session() as session:
            ended = cast("CursorResult[Any]", session.execute(delete(UserSession).where(UserSession.user_name == name)))
            return int(ended.rowcount)

    def _touch(self, token_hash: str, moment: datetime) -> None:
        with self._catalogue.session() as session:
            session.execute(update(UserSession).where(UserSession.token_hash == token_hash).values(seen_at=moment))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _csrf(token: str) -> str:
    """Return the token of forms, derived one-way from the session token so that it need not be stored."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"forms", hashlib.sha256).hexdigest()
