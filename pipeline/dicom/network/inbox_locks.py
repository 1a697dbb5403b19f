"""Locks of an inbox between processes: one writer per role, and one hand at a time on a study.

`nightread listen` and `nightread pull` write to the same inbox at the same time. A lock of `fcntl.flock` belongs to an
open file, not to a thread, so a thread lock guards each.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.dicom.identity.keyfile import make_private_folder
from pipeline.errors import CatalogueError

Role = Literal["listen", "pull"]
_DIGITS = "0123456789abcdef"  # names of studies are hexadecimal


def lock_role(folder: Path, role: Role) -> int:
    """Return the descriptor of the lock that makes this process the inbox's only listener, or its only puller.

    Raises:
        CatalogueError: another process has this role.
    """
    descriptor = _open(folder / f".{role}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CatalogueError(
            f"Another `nightread {role}` has this inbox open. Stop it, or choose another folder with --inbox."
        ) from None
    return descriptor


class StudyLocks:
    """Locks on studies, shared with other processes: a file for each first digit of a study's name."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._files = {digit: _open(folder / digit) for digit in _DIGITS}
        self._threads = {digit: threading.Lock() for digit in _DIGITS}

    @contextmanager
    def hold(self, study: str) -> Iterator[None]:
        """Wait until no other thread or process moves files of a study with this first digit, and keep them waiting."""
        digit = study[0] if study[0] in self._files else "0"  # of a folder that somebody else put there
        with self._threads[digit]:
            fcntl.flock(self._files[digit], fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._files[digit], fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
