"""Users: names, roles, and passwords as argon2id hashes (RFC 9106, the library's current parameters)."""

from __future__ import annotations

import re
import threading
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import delete, select

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import User as UserRow
from pipeline.data.catalogue.review_schema import UserSession
from pipeline.errors import ReviewError
from pipeline.review.audit import Audit
from pipeline.review.permissions import PERMISSIONS, ROLES, Actor
from pipeline.review.refusals import BadInput
from pipeline.review.text import clean_text

__all__ = ["Actor", "Passwords", "User", "Users", "name_of"]
_NAME = re.compile(r"[\w.@+-]{1,64}")
LONGEST_PASSWORD = 1024
_AT_ONCE = threading.BoundedSemaphore(
    2
)  # a hash needs 64 MiB; fifty simultaneous logins must not need fifty times that


@dataclass(frozen=True, slots=True)
class User:
    """A user of the reading list."""

    name: str
    role: str
    disabled: bool
    created_at: datetime

    def may(self, action: str) -> bool:
        """Return whether the role allows an action."""
        return not self.disabled and action in PERMISSIONS.get(self.role, frozenset())

    def at(self, address: str) -> Actor:
        """Return this user as an actor at an address."""
        return Actor(self.name, self.role, address)


class Passwords:
    """Hash and check passwords; a check for an unknown user takes as long as one for a known user."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """Return the argon2id hash of a password, with its parameters and salt."""
        with _AT_ONCE:
            return self._hasher.hash(_octets(password))

    def fits(self, password: str, stored_hash: str) -> bool:
        """Return whether a password matches; an empty `stored_hash` never matches, but takes the same time."""
        with _AT_ONCE:
            try:
                return self._hasher.verify(stored_hash or self._nobody, _octets(password)) and bool(stored_hash)
            except (Argon2Error, InvalidHashError):
                return False

    def is_dated(self, stored_hash: str) -> bool:
        """Return whether a hash was made with outdated parameters."""
        return self._hasher.check_needs_rehash(stored_hash)


def _octets(password: str) -> bytes:
    """Return a password's bytes in normalised form (NFC); any text is accepted, since only the right one matches."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def name_of(text: str) -> str:
    """Return a user name in canonical form: NFKC, lower case.

    Raises:
        BadInput: it has blanks or signs other than . @ + - _, or more than 64 characters.
    """
    name = unicodedata.normalize("NFKC", clean_text(text, "user name", 256)).casefold()
    if not _NAME.fullmatch(name):
        raise BadInput("A user name must have 1 to 64 letters, digits or any of . @ + - _. Choose another.")
    return name


class Users:
    """The list of users."""

    def __init__(self, catalogue: Catalogue, audit: Audit, policy: ReviewPolicy, passwords: Passwords) -> None:
        self._catalogue, self._audit, self._policy, self.passwords = catalogue, audit, policy, passwords

    def add(self, name: str, role: str, password: str | None, actor: Actor) -> User:
        """Add a user; without a password, only a proxy can authenticate them.

        Raises:
            BadInput: the name is taken or not valid, the role does not exist, or the password is too short.
            NotAllowed: the actor may not manage users.
        """
        actor.require("users")
        name = name_of(name)
        if role not in ROLES:
            raise BadInput(f"There is no role {role[:20]!r}; use one of {', '.join(ROLES)}.")
        hashed = "" if password is None else self._hashed(password)
        with self._catalogue.session() as session:
            if session.get(UserRow, name) is not None:
                raise BadInput(f"A user {name!r} exists already. Choose another name, or set that user's password.")
            session.add(row := UserRow(name=name, role=role, password_hash=hashed, disabled=False))
            self._audit.add(session, "user-add", actor, f"user:{name}", {"role": role})
            session.flush()
            return _user(row)

    def list(self) -> tuple[User, ...]:
        """Return every user, by name."""
        with self._catalogue.reading() as session:
            return tuple(_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.name)))

    def get(self, name: str) -> User | None:
        """Return a user, even a disabled one, or None if it does not exist."""
        try:
            canonical = name_of(name)
        except ReviewError:  # not a valid name, so no user has it
            return None
        with self._catalogue.reading() as session:
            row = session.get(UserRow, canonical)
            return None if row is None else _user(row)

    def read_password_hash(self, name: str) -> str:
        """Return the password hash of a user who may log in; "" for everybody else."""
        with self._catalogue.reading() as session:
            query = select(UserRow.password_hash).where(UserRow.name == name, UserRow.disabled.is_(False))
            return session.scalar(query) or ""

    def set_password(self, name: str, password: str, actor: Actor) -> None:
        """Change one's own password or, as an admin, anybody's; every session of that user ends.

        Raises:
            BadInput: no such user, or the password is too short.
            NotAllowed: the actor may not change it.
        """
        if name_of(name) != actor.name:
            actor.require("users")
        self._change(name, actor, "user-password", {"password_hash": self._hashed(password)})

    def disable(self, name: str, actor: Actor) -> None:
        """Disable a user and end their sessions; their decisions stay (BadInput, NotAllowed)."""
        actor.require("users")
        self._change(name, actor, "user-disable", {"disabled": True})

    def enable(self, name: str, actor: Actor) -> None:
        """Enable a disabled user again (BadInput, NotAllowed)."""
        actor.require("users")
        self._change(name, actor, "user-enable", {"disabled": False})

    def rehash(self, name: str, password: str) -> None:
        """Store the hash of a password that was just checked, with today's parameters."""
        hashed = self.passwords.hash(password)
        with self._catalogue.session() as session:
            row = session.get(UserRow, name)
            if row is not None:
                row.password_hash = hashed

    def _change(self, name: str, actor: Actor, action: str, values: dict[str, object]) -> None:
        name = name_of(name)
        with self._catalogue.session() as session:
            row = session.get(UserRow, name)
            if row is None:
                raise BadInput(f"There is no user {name!r}. List the users with nightread review users list")
            for key, value in values.items():
                setattr(row, key, value)
            session.execute(delete(UserSession).where(UserSession.user_name == name))
            self._audit.add(session, action, actor, f"user:{name}")

    def _hashed(self, password: str) -> str:
        clean_text(password, "password", LONGEST_PASSWORD)
        if len(password) < self._policy.password_characters:
            raise BadInput(
                f"A password needs at least {self._policy.password_characters} characters; this one has "
                f"{len(password)}."
            )
        return self.passwords.hash(password)


def _user(row: UserRow) -> User:
    return User(row.name, row.role, row.disabled, row.created_at)
