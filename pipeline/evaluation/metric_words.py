"""Words for the names of metrics, as a table or a page shows them; the names themselves are keys in JSON and MLflow."""

from __future__ import annotations

SENSITIVITY = "sens@"


def describe_metric(name: str) -> str:
    """Return a metric's name in words: `sens@90` is "sensitivity at 90 % specificity"; others say what they are."""
    if name.startswith(SENSITIVITY):
        return f"sensitivity at {name.removeprefix(SENSITIVITY)} % specificity"
    return name
