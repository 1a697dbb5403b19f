"""Permissions of each role; no other module interprets a role."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ReviewPolicy
from pipeline.review.refusals import NotAllowed

_READING = frozenset({"list", "view", "decide", "night", "model"})
PERMISSIONS: dict[str, frozenset[str]] = {
    "reader": _READING,
    "lead": _READING | {"assign", "undo_any", "search_accession", "identify", "trace"},
    "admin": frozenset({"users", "promote", "night", "model"}),
    "auditor": frozenset({"audit", "export_audit", "trace", "night", "model"}),
}
ROLES = tuple(PERMISSIONS)


@dataclass(frozen=True, slots=True)
class Actor:
    """The acting user, with role and address."""

    name: str
    role: str
    address: str = ""

    def may(self, action: str) -> bool:
        """Return whether the role allows an action."""
        return action in PERMISSIONS.get(self.role, frozenset())

    def require(self, action: str) -> None:
        """Raise NotAllowed if the role does not allow an action."""
        if not self.may(action):
            allowed = " or ".join(role for role, actions in PERMISSIONS.items() if action in actions)
            raise NotAllowed(
                f"Your role, {self.role}, does not allow this ({action}). It needs the role {allowed or 'of nobody'}; "
                "ask an admin."
            )


@dataclass(frozen=True, slots=True)
class CommandLine(Actor):
    """The operator of this machine, who may do everything and appears as `command-line` in the audit log."""

    name: str = "command-line"
    role: str = "command-line"
    address: str = "local"

    def may(self, action: str) -> bool:
        """Allow everything: this person can open the files of the workspace anyway."""
        return True


def may_identify(actor: Actor, policy: ReviewPolicy) -> bool:
    """Return whether somebody who views scans may see real identifiers: study dates, and links to the site's viewer."""
    return actor.may("identify") or (policy.readers_identify and actor.may("view"))
