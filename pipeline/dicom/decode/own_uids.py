"""UIDs that Nightread gives to the objects it makes, and recognises again without a record of them.

Such a UID is `2.25.<UUID version 8>` (PS3.5 B.2, RFC 9562 5.8) whose last 48 bits are a checksum of those before. Every
installation knows the UIDs of every other, and a UID from elsewhere passes by chance once in 2.8e14.
"""

from __future__ import annotations

import hashlib
import re

_ROOT = "2.25."
_DERIVED = re.compile(r"2\.25\.[0-9]{1,39}")
_DOMAIN = b"nightread object\x1f"
_HEAD, _CHECK = 10, 6  # bytes


def own_uid(*parts: object) -> str:
    """Return the UID of an object made from these parts: equal parts give equal UIDs (<= 44 characters)."""
    text = "\x1f".join(str(part) for part in parts)
    head = bytearray(hashlib.sha256(_DOMAIN + text.encode()).digest()[:_HEAD])
    head[6], head[8] = head[6] & 0x0F | 0x80, head[8] & 0x3F | 0x80  # version 8, variant of RFC 9562
    return f"{_ROOT}{int.from_bytes(head + _checksum(bytes(head)), 'big')}"


def is_own_uid(uid: str) -> bool:
    """Return whether `own_uid` made this UID, in any installation."""
    if not _DERIVED.fullmatch(uid):
        return False
    number = int(uid.removeprefix(_ROOT))
    if number >> 128:
        return False
    octets = number.to_bytes(_HEAD + _CHECK, "big")
    return octets[6] >> 4 == 8 and octets[_HEAD:] == _checksum(octets[:_HEAD])


def _checksum(head: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + head).digest()[:_CHECK]
