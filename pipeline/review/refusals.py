"""Errors of the reading list; each message may be shown to the user who made the request."""

from __future__ import annotations

from pipeline.errors import ReviewError


class StaleDecision(ReviewError):
    """Somebody decided after the form was rendered."""


class HeldByAnother(ReviewError):
    """Another reader has the scan."""


class UnknownFinding(ReviewError):
    """The reading list has no such row."""


class ScanGone(ReviewError):
    """The images are no longer there."""


class NotAllowed(ReviewError):
    """The role does not allow it."""


class BadText(ReviewError):
    """A text cannot be stored: it is too long, or is not valid text."""


class BadInput(ReviewError):
    """A value is not an allowed value."""


class Overtaken(ReviewError):
    """A save of a draft arrived after a newer one of its window; `version` is the newer one's."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"A newer text of this window is kept already, as version {version}. Save again to replace it."
        )
        self.version = version

    def __reduce__(self) -> tuple[type[Overtaken], tuple[int]]:
        """Keep the version when the error crosses a process boundary."""
        return type(self), (self.version,)


class LoginRefused(ReviewError):
    """Name and password do not match; the message does not say which is wrong."""


class TooManyFailures(ReviewError):
    """Too many failed log-ins; `wait_s` is how long to wait.

    Args:
        wait_s: whole seconds.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many failed log-ins. Try again in {wait_s} seconds.")
        self.wait_s = wait_s

    def __reduce__(self) -> tuple[type[TooManyFailures], tuple[int]]:
        """Keep the seconds when the error crosses a process boundary."""
        return type(self), (self.wait_s,)


def check_id(finding_id: int) -> int:
    """Return the id if a finding could have it, else raise UnknownFinding: a URL may hold any number."""
    if not 0 < finding_id < 2**31:
        raise unknown(finding_id)
    return finding_id


def unknown(finding_id: int) -> UnknownFinding:
    """Return the error for a row that the list does not have."""
    return UnknownFinding(
        f"The reading list has no finding {str(finding_id)[:12]}. Go back to the list and choose another."
    )
