"""Storage of the pixel store's objects: a local folder with atomic durable writes, or any fsspec file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline import durable
from pipeline.errors import CatalogueError, ConfigError


class ObjectStorage(Protocol):
    """Named immutable byte strings; names are relative, with forward slashes."""

    def write(self, name: str, data: bytes) -> None:
        """Write the object whole or not at all; raises CatalogueError."""

    def open(self, name: str) -> IO[bytes]:
        """Open for reading with seek; raises OSError (FileNotFoundError where it is missing)."""

    def exists(self, name: str) -> bool:
        """Return whether the object exists."""

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
        system, root = fsspec.core.url_to_fs(url)
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


class RemoteObjects:
    """Objects of an fsspec file system; object stores guarantee that a single put is atomic."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        """See ObjectStorage."""
        path = f"{self._root}/{name}"
        try:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)
        except Exception as error:  # every driver raises its own types
            raise CatalogueError(
                f"The pixel store cannot be written: {type(error).__name__}. No data is lost: ingest again later."
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """See ObjectStorage."""
        return self._system.open(f"{self._root}/{name}", "rb")

    def exists(self, name: str) -> bool:
        """See ObjectStorage."""
        return self._system.exists(f"{self._root}/{name}")

    def list_names(self, suffix: str) -> Iterator[str]:
        """See ObjectStorage."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._system.find(self._root):
                if path.endswith(suffix):
                    yield path.removeprefix(self._root).lstrip("/")

    def delete(self, name: str) -> bool:
        """See ObjectStorage."""
        try:
            self._system.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return False
        return True
