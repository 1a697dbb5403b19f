"""Parts of a workspace: their locations, and whether a copy or a backup of the folder includes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.config import Settings
from pipeline.durable import PART

# Identifying data: the key and the crosswalk, and objects as they are exchanged with the PACS.
IDENTIFYING = ("identity", "inbox", "outbox")
REBUILT = "cache"
# A database's side files, whose content is in the snapshot; locks; files being written.
_PASSING_SUFFIXES = (PART, ".lock", "-wal", "-shm", "-journal")
_PASSING_FOLDERS = {".writing"}
_PASSING_PLACES = ("inbox/part",)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a workspace.

    Attributes:
        name: name of the part.
        where: its path, or its URL without credentials.
        outside: whether it is outside the workspace, so that neither a copy nor a backup includes it.
        how: how to back it up if it is outside.
    """

    name: str
    where: str
    outside: bool
    how: str


def parts(settings: Settings) -> list[Part]:
    """Return every part that the settings may place elsewhere, and those that are always in the workspace."""
    folder, dump = settings.workspace, "pg_dump --format=custom"
    served = settings.mlflow_server is not None
    return [
        _part("catalogue", settings.catalogue_url, folder / "catalogue.db", dump),
        _part("crosswalk", settings.crosswalk_url, folder / "identity/crosswalk.db", f"{dump}, kept apart"),
        _part("pixel store", settings.store_url, folder / "pixels", "a copy of its folder, or the object store's own"),
        _part("MLflow", settings.mlflow_uri, folder / "mlflow", "its server's own backup" if served else dump),
        _part("runs", None, settings.runs, ""),
        _part("generated images", None, settings.generated, ""),
        _part("indices of similar images", None, settings.indices, ""),
        _part("pseudonym key", None, settings.key_file, ""),
        _part("inbox", None, settings.inbox, ""),
        _part("Prefect", None, folder / "prefect", ""),
    ]


def _part(name: str, elsewhere: str | None, inside: Path, how: str) -> Part:
    if elsewhere is None:
        return Part(name, str(inside), False, how)
    return Part(name, re.sub(r"//[^/@]*@", "//", elsewhere), True, how)


def is_identifying(name: PurePosixPath) -> bool:
    """Whether a path, relative to the workspace, is identifying data."""
    return name.parts[0] in IDENTIFYING


def is_passing(name: PurePosixPath) -> bool:
    """Whether a path, relative to the workspace, can be rebuilt, or is useless without a running process."""
    return (
        name.parts[0] == REBUILT
        or name.name.endswith(_PASSING_SUFFIXES)
        or not _PASSING_FOLDERS.isdisjoint(name.parts)
        or any(name.is_relative_to(place) for place in _PASSING_PLACES)
    )


def list_files(workspace: Path, identifying: bool) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield (path relative to the workspace, absolute path) of the files to keep, in a fixed order.

    A link to a folder is followed, since a store is often linked from a larger disk; a circular one is not.

    Args:
        workspace: the folder.
        identifying: whether to yield the identifying files or the others.
    """
    seen: set[str] = set()
    for place, below, names in os.walk(workspace, followlinks=True):
        folder = Path(place)
        if (real := str(folder.resolve())) in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        for file in sorted(names):
            path = folder / file
            name = PurePosixPath(path.relative_to(workspace).as_posix())
            if is_identifying(name) == identifying and not is_passing(name) and path.is_file():
                yield name, path
