"""Who may do what: the only place where a role means anything."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.review.refusals import NotAllowed

_READING = frozenset({"list", "view", "decide", "night", "model"})
PERMISSIONS: dict[str, frozenset[str]] = {
    "reader": _READING,
    "lead": _READING | {"assign", "undo_any", "search_accession"},
    "admin": frozenset({"users", "night", "model"}),
    "auditor": frozenset({"audit", "export_audit", "night", "model"}),
}
ROLES = tuple(PERMISSIONS)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, in what role, from which address."""

    name: str
    role: str
    address: str = ""

    def may(self, action: str) -> bool:
        """Say whether the role allows an action."""
        return action in PERMISSIONS.get(self.role, frozenset())

    def require(self, action: str) -> None:
        """Raise NotAllowed where the role does not allow an action."""
        if not self.may(action):
            allowed = " or ".join(role for role, actions in PERMISSIONS.items() if action in actions)
            raise NotAllowed(f"Your role, {self.role}, does not allow that ({action}): it takes {allowed or 'nobody'}.")


@dataclass(frozen=True, slots=True)
class CommandLine(Actor):
    """Whoever has the workspace on this machine: may do everything, and is named so in the audit log."""

    name: str = "command-line"
    role: str = "command-line"
    address: str = "local"

    def may(self, action: str) -> bool:
        """Allow everything: the files of the workspace lie open to this person anyway."""
        return True
