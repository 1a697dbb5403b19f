"""What the reading list refuses, by kind; each sentence may be shown to whoever asked."""

from __future__ import annotations

from pipeline.errors import ReviewError


class StaleDecision(ReviewError):
    """Somebody decided since the form was made."""


class HeldByAnother(ReviewError):
    """Another reader has the scan."""


class UnknownFinding(ReviewError):
    """The reading list has no such row."""


class ScanGone(ReviewError):
    """The images are no longer there."""


class NotAllowed(ReviewError):
    """The role does not allow it."""


class BadText(ReviewError):
    """A text cannot be kept: too long, or no text."""


class BadInput(ReviewError):
    """A value is none that is allowed."""


class LoginRefused(ReviewError):
    """Name and password do not fit; which of the two is not said."""


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


def checked_id(finding_id: int) -> int:
    """Return the id of a finding that there could be (UnknownFinding): an address may hold any number."""
    if not 0 < finding_id < 2**31:
        raise unknown(finding_id)
    return finding_id


def unknown(finding_id: int) -> UnknownFinding:
    """Return the error that says that the list has no such row."""
    return UnknownFinding(f"The reading list has no finding {str(finding_id)[:12]}. Open the list again.")
