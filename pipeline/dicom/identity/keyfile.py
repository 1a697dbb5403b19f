"""Secret key of the pseudonyms on disk: mode 0600, created whole or not at all, refused when exposed or damaged.

Format: one line `nightread-key-1 <64 hex digits> <8 hex digits>`. The last word is the start of the key's SHA-256, so a
truncated or edited file is detected and never silently used as another key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path

from pipeline import durable
from pipeline.errors import IdentityError

_FORMAT = "nightread-key-1"
_WITHHELD = "nightread-key-withheld"
KEY_BYTES = 32


def create_key(path: Path) -> bytes:
    """Create the key file at `path` unless it exists, and return the key in it.

    The file is linked into place complete and synced, so concurrent processes end up with the same key, and a crash
    leaves either no key or a complete one. The 256 bits come from the operating system.

    Raises:
        IdentityError: the folder cannot be written, or the existing key is exposed or damaged.
    """
    try:
        make_private_folder(path.parent)
        if not os.path.lexists(path):
            # Returns False where another process was first: then its key is the one to use.
            durable.create(path, _render(secrets.token_bytes(KEY_BYTES)))
    except OSError as error:
        raise IdentityError(
            f"The pseudonym key cannot be written: {error.strerror}. The identity folder must allow new files and hard "
            "links; put the workspace on a local file system."
        ) from None
    return read_key(path)


def make_private_folder(folder: Path) -> None:
    """Create `folder` with mode 0700 if it is missing, and the workspace around it likewise; syncs their names."""
    durable.make_private(folder.parent)
    durable.make_private(folder)


def withhold_key(path: Path, token: str) -> None:
    """Say in the key's place that the key is kept elsewhere, under `token`: no new one is made, and none is read."""
    make_private_folder(path.parent)
    durable.create(path, f"{_WITHHELD} {token}\n")


def read_withheld_token(path: Path) -> str | None:
    """Return the token of a key that was withheld, None where the key is there or no workspace is."""
    try:
        words = path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
    return words[1] if len(words) == 2 and words[0] == _WITHHELD else None


def _render(key: bytes) -> str:
    return f"{_FORMAT} {key.hex()} {_check_word(key)}\n"


def _check_word(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]


def read_key(path: Path) -> bytes:
    """Return the 32 key bytes of the file at `path`.

    Raises:
        IdentityError: missing, a link, owned by someone else, readable by others, or damaged.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)  # a link could lead to a file of somebody else
    except OSError as error:
        raise IdentityError(
            f"The pseudonym key cannot be opened: {error.strerror}. Run as its owner, or restore it from your backup; "
            "a new key would give every known patient a second pseudonym."
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        check_private(os.fstat(file.fileno()), "pseudonym key")
        return _parse(file.read(4096))


def check_private(status: os.stat_result, what: str) -> None:
    """Refuse a file that is not a regular file of this user, or that group or others can access.

    Raises:
        IdentityError: the message gives the actual mode and the required one.
    """
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"The {what} is not a regular file. Replace the link by the file itself.")
    if mode & 0o077:
        raise IdentityError(
            f"The {what} has mode {mode:04o}, so other users can access it; 0600 is required. Find out who could read "
            "it, set it with chmod 600, and rotate the key if it may have been read."
        )
    if os.geteuid() not in (0, status.st_uid):
        raise IdentityError(f"The {what} belongs to user {status.st_uid}, not {os.geteuid()}. Run as its owner.")


def _parse(content: bytes) -> bytes:
    words = content.decode("ascii", errors="replace").split()
    if words[:1] == [_WITHHELD]:
        raise IdentityError(
            "This workspace was restored without its pseudonym key, and a new one would give every known patient a "
            "second pseudonym. Restore the identity archive of the same backup: nightread restore IDENTITY FOLDER"
        )
    try:
        key = bytes.fromhex(words[1]) if len(words) == 3 and words[0] == _FORMAT else b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or words[2] != _check_word(key):
        raise IdentityError(
            f"The pseudonym key file is damaged ({len(content)} bytes, not one {_FORMAT} line). Restore it from "
            "your backup; do not delete it, or every known patient gets a second pseudonym."
        )
    return key


class KeyLock:
    """Advisory lock beside the key: shared by processes that make pseudonyms, exclusive for a rotation.

    The lock is released by `close`, when the object is garbage-collected, or when the process ends in any way.
    """

    def __init__(self, key_file: Path, exclusive: bool = False) -> None:
        make_private_folder(key_file.parent)
        self._descriptor: int | None = os.open(key_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise IdentityError(_busy(exclusive)) from None

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()


def _busy(exclusive: bool) -> str:
    if exclusive:
        return (
            "The pseudonym key is in use by an ingest, a label import or another command, so it cannot be rotated now. "
            "Wait until that command has finished, or stop it, and rotate again."
        )
    return "A key rotation is running. Wait until it has finished, then run the command again."
