"""Limits on what an archive may expand to: an archive inside an archive spends from the budget of the outermost."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import DecodeLimits
from pipeline.errors import Rejected, RejectionCode

BOMB_RATIO = 200  # an archive that swells by more than this ...
BOMB_BYTES = 64 * 2**20  # ... to more than this many bytes is treated as a decompression bomb
MAX_MEMBERS = 1_000_000


class Budget:
    """What an archive may expand to, archives inside it included: detects bombs by what is really decompressed."""

    def __init__(self, archive: Path, limits: DecodeLimits) -> None:
        self.size, self._largest = archive.stat().st_size, limits.file_bytes
        self._count, self._written = 0, 0

    def begin(self) -> None:
        """Count a member."""
        self._count += 1

    def spend(self, more: int, member_bytes: int) -> None:
        """Count bytes of a member that holds `member_bytes` so far.

        Raises:
            Rejected: ARCHIVE_BOMB.
        """
        self._written += more
        swollen = self._written > BOMB_BYTES and self._written > BOMB_RATIO * self.size
        if swollen or member_bytes > self._largest or self._count > MAX_MEMBERS:
            sentence = f"The archive of {self.size} bytes expands beyond {self._written} bytes: a member is larger than"
            sentence += f" `file_bytes`, or the archive swells {BOMB_RATIO}-fold. If it is genuine, unpack it yourself"
            sentence += " and ingest the folder."
            raise Rejected(RejectionCode.ARCHIVE_BOMB, sentence)
