"""Storage of the pixel store's objects: a local folder with atomic durable writes, or any fsspec file system."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

from pipeline import durable
from pipeline.errors import CatalogueError, ConfigError


class ObjectStorage(Protocol):
    """Named immutable byte strings; names are relative, with forward slashes."""

    def write(self, name: str, data: bytes) -> None:
        """Write the object whole or not at all; raises CatalogueError."""

    def open(self, name: str) -> IO[bytes]:
        """Open for reading with seek; raises OSError (FileNotFoundError where it is missing)."""

    def exists(self, name: str) -> bool:
        """Return whether the object exists; raises OSError where the storage does not answer."""

    def size(self, name: str) -> int:
        """Return the size in bytes; 0 where the object is missing."""

    def list_names(self, suffix: str) -> Iterator[str]:
        """Yield the names that end with `suffix`."""

    def delete(self, name: str) -> bool:
        """Delete the object, and return whether it was there."""


def open_objects(url: str) -> ObjectStorage:
    """Return the storage behind a folder path or an fsspec URL.

    Raises:
        ConfigError: the URL names a protocol whose driver is not installed.
    """
    if "://" not in url:
        return LocalObjects(Path(url))
    if url.startswith(("file://", "local://")):
        return LocalObjects(Path(url.partition("://")[2]))
    import fsspec

    try:
        # A listing kept in memory would not show what other machines write or erase.
        system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"store_url cannot be used: {error}. Install its fsspec driver, or set a folder.") from None
    return RemoteObjects(system, root)


class LocalObjects:
    """Files below a folder. A write goes to a temporary file, is flushed to the disk, and is then renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writing = root / ".writing"
        self._swept = False

    def write(self, name: str, data: bytes) -> None:
        """Write durably; see ObjectStorage."""
        try:
            self._replace(self._root / name, data)
        except OSError as error:
            raise CatalogueError(
                f"The pixel store cannot be written: {error.strerror}. No data is lost: free space or make it "
                "writable, and ingest again."
            ) from None

    def _replace(self, target: Path, data: bytes) -> None:
        # Staged in another folder, so that a listing of objects never contains a temporary file.
        self._prepare()
        durable.write(target, data, staging=self._writing)

    def open(self, name: str) -> IO[bytes]:
        """Open a file; see ObjectStorage."""
        return (self._root / name).open("rb")

    def exists(self, name: str) -> bool:
        """See ObjectStorage."""
        return (self._root / name).is_file()

    def size(self, name: str) -> int:
        """See ObjectStorage."""
        file = self._root / name
        return file.stat().st_size if file.is_file() else 0

    def list_names(self, suffix: str) -> Iterator[str]:
        """See ObjectStorage; temporary files are not listed."""
        if not self._root.is_dir():
            return
        for folder in os.scandir(self._root):
            if folder.is_dir() and folder.name != self._writing.name:
                yield from (f"{folder.name}/{e.name}" for e in os.scandir(folder.path) if e.name.endswith(suffix))

    def delete(self, name: str) -> bool:
        """See ObjectStorage."""
        try:
            (self._root / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _prepare(self) -> None:
        if not self._swept:
            durable.make_folder(self._writing)
            durable.sweep(self._writing)
            self._swept = True


SMALL_BYTES = 8 * 2**20  # an object up to this size is fetched in one request


class RemoteObjects:
    """Objects of an fsspec file system.

    Object stores have no rename and need none: a put makes an object visible whole or not at all, and answers when it
    is durable; S3 shows it to every reader from then on (strong consistency, December 2020). An upload in parts that a
    kill cuts off is never visible; a lifecycle rule of the bucket removes its parts.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._folders: set[str] = set()

    def write(self, name: str, data: bytes) -> None:
        """See ObjectStorage."""
        path = self._path(name)
        try:
            self._make_folder(path.rpartition("/")[0])
            self._system.pipe_file(path, data)
        except Exception as error:  # every driver raises its own types
            raise CatalogueError(
                f"The pixel store cannot be written: {type(error).__name__}. No data is lost: ingest again later."
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """See ObjectStorage. A small object takes one request, and so does its absence."""
        path = self._path(name)
        with _as_os_error():
            start: bytes = self._system.cat_file(path, start=0, end=SMALL_BYTES)
            if len(start) < SMALL_BYTES:
                return io.BytesIO(start)
            return cast(IO[bytes], self._system.open(path, "rb"))

    def exists(self, name: str) -> bool:
        """See ObjectStorage."""
        with _as_os_error():
            return bool(self._system.exists(self._path(name)))

    def size(self, name: str) -> int:
        """See ObjectStorage."""
        try:
            return int(self._system.info(f"{self._root}/{name}")["size"] or 0)
        except FileNotFoundError:
            return 0

    def list_names(self, suffix: str) -> Iterator[str]:
        """See ObjectStorage."""
        with contextlib.suppress(FileNotFoundError), _as_os_error():
            for path in self._system.find(self._root):
                if path.endswith(suffix):
                    yield path.removeprefix(self._root).lstrip("/")

    def delete(self, name: str) -> bool:
        """See ObjectStorage; S3 itself does not say whether there was anything to delete."""
        if not self.exists(name):
            return False
        with _as_os_error():
            self._system.rm_file(self._path(name))
        return True

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_folder(self, folder: str) -> None:
        """Make a folder once, for file systems that have folders: on S3 it costs a request that checks the bucket."""
        if folder not in self._folders:
            self._system.makedirs(folder, exist_ok=True)
            self._folders.add(folder)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise every driver's own errors as OSError, without their text: it may hold an address or a credential."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise OSError(errno.EIO, reason or f"the remote storage failed ({type(error).__name__})") from None
