"""Request of one night, kept in a private file because Prefect stores a flow's parameters and shows them to everybody.

A folder may be named after a patient, so flows receive the path of the request and read the paths of scans from it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline import durable
from pipeline.config import Settings, load_config
from pipeline.dicom.identity.keyfile import make_private_folder
from pipeline.stages.watch.schedule import Schedule


def read_request(file: str) -> Schedule:
    """Return the content of a request file.

    Raises:
        ConfigError: the file cannot be read.
    """
    return load_config(file, Schedule)


def read_roots(request: str, workspace: str) -> list[str]:
    """Return the folders and archives to ingest: those of the request, and the network inbox.

    Complete studies from `nightread listen` and `nightread pull` are always included, whatever the request says.

    Raises:
        ConfigError: the request or the settings cannot be read.
    """
    roots, received = list(read_request(request).roots), Settings.load(workspace).inbox / "complete"
    if not received.is_dir() or any(received.is_relative_to(root) for root in roots):
        return roots
    return [*roots, str(received)]


def write_request(
    settings: Settings,
    roots: Sequence[str],
    configs: Sequence[str],
    labels: Sequence[str],
    tasks: Sequence[str] = (),
    schedule: str = "",
) -> Path:
    """Write a request, readable only by its owner, and return its path; that of a `schedule` is overwritten."""
    folder = _folder(settings)
    make_private_folder(folder.parent)
    make_private_folder(folder)
    file = folder / f"{f'schedule-{schedule}' if schedule else uuid.uuid4().hex}.json"
    parts = {"roots": roots, "configs": configs, "labels": labels, "tasks": tasks}
    request = {"name": schedule or "nightly"} | {part: list(paths) for part, paths in parts.items()}
    return durable.write(file, json.dumps(request, indent=1), mode=0o600)


def find_request(settings: Settings, schedule: str) -> Path | None:
    """Return the request of a schedule that has been served on this workspace, if there is one."""
    file = _folder(settings) / f"schedule-{schedule}.json"
    return file if file.exists() else None


def _folder(settings: Settings) -> Path:
    return settings.key_file.parent / "requests"  # beside the crosswalk, where everything identifying is kept


@contextmanager
def hold_request(
    workspace: str,
    roots: Sequence[str],
    configs: Sequence[str] = (),
    labels: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the path of a request that exists while the block runs."""
    file = write_request(Settings.load(workspace), roots, configs, labels, tasks)
    try:
        yield str(file)
    finally:
        file.unlink(missing_ok=True)
