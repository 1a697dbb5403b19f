"""Fragments of encapsulated pixel data (PS3.5 A.4): which of them make a frame, and where they end."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets, parse_fragments
from pydicom.uid import UID, RLELossless

from pipeline.errors import Rejected, RejectionCode

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_OPENINGS = tuple(b"\xe0\x7f\x10\x00" + vr + b"\x00\x00\xff\xff\xff\xff" for vr in (b"OB", b"OW", b"UN"))
_RLE_HEADER = 64  # bytes: a number of segments, then fifteen offsets, the first of which is 64 (PS3.5 G.5)
_TRAILING = (b"\xfc\xff\xfc\xff", b"\xfa\xff\xfa\xff")  # (FFFC,FFFC) padding and (FFFA,FFFA) signatures


def split_frames(data: bytes, frames: int, segments: int, syntax: UID) -> tuple[list[bytes], bool]:
    """Return the coded frames, and whether RLE frames were in several fragments, of which some may be empty.

    Args:
        data: the value of the pixel data element.
        frames: number that the header declares.
        segments: RLE segments of a frame: bytes of a pixel.
        syntax: transfer syntax.

    Raises:
        Rejected: FRAME_COUNT, the fragments are not that many frames.
    """
    offsets = parse_basic_offsets(data)
    count = parse_fragments(data[8 + 4 * len(offsets) :])[0]
    if syntax == RLELossless and count != frames:
        filled = [fragment for fragment in generate_fragments(data[8 + 4 * len(offsets) :]) if fragment]
        groups = _group_rle(filled, segments)
        if len(groups) == frames:
            return groups, True
    wrong_table = bool(offsets) and len(offsets) != frames
    if count < frames or wrong_table or (syntax == RLELossless and count != frames):
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {frames}, but the pixel data holds {count} fragments and {len(offsets)} offsets. "
            "Export the object again with the number of frames that it holds.",
        )
    return list(generate_frames(data, number_of_frames=frames)), False


def _group_rle(fragments: Sequence[bytes], segments: int) -> list[bytes]:
    groups: list[list[bytes]] = []
    for fragment in fragments:
        if _begins_rle(fragment, segments) or not groups:
            groups.append([])
        groups[-1].append(fragment)
    return [b"".join(group) for group in groups]


def _begins_rle(fragment: bytes, segments: int) -> bool:
    numbers = [int.from_bytes(fragment[at : at + 4], "little") for at in range(0, _RLE_HEADER, 4)]
    rest = numbers[1 + segments :]
    return len(fragment) >= _RLE_HEADER and numbers[:2] == [segments, _RLE_HEADER] and not any(rest)


def closed(content: bytes) -> bytes | None:
    """Return a file whose pixel data lacks only its final delimiter with that delimiter; None if more is missing.

    Every fragment must be complete. Part of a delimiter, zeros or a trailing padding element may follow the last one.
    """
    start = max((content.rfind(opening) for opening in _OPENINGS), default=-1)
    if start < 0:
        return None
    at = start + 12
    while content[at : at + 4] == _ITEM and at + 8 <= len(content):
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
    rest = content[at:]
    whole = start + 12 < at <= len(content)
    ends = _DELIMITER.startswith(rest[:8]) or not rest.strip(b"\0") or rest.startswith(_TRAILING)
    if not whole or not ends:
        return None
    return content[:at] + _DELIMITER + (rest if rest.startswith(_TRAILING) else b"")
