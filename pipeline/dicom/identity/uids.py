"""DICOM unique identifiers derived from what they identify, so that writing twice produces the same objects."""

from __future__ import annotations

import uuid

# Root of every UID that Nightread derives; changing it changes all of them.
NAMESPACE = uuid.UUID("6e2f5c0a-4b7d-5f0e-9c53-0d1a7b2e8f41")


def derived_uid(*parts: object) -> str:
    """Return the UID `2.25.<UUID5 of the parts>` (DICOM PS3.5 B.2): equal parts give equal UIDs (<= 44 characters)."""
    text = "\x1f".join(str(part) for part in parts)
    return f"2.25.{uuid.uuid5(NAMESPACE, text).int}"
