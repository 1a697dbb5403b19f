"""Request of one night, kept in a private file because Prefect stores a flow's parameters and shows them to everybody.

A folder may be named after a patient, so flows receive the path of the request and read the paths of scans from it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from pipeline import durable
from pipeline.config import Config, Settings, ZoneName, load_config
from pipeline.dicom.identity.keyfile import make_private_folder


class Schedule(Config):
    """Schedule of the night and its inputs: `configs/schedules/*.yaml`."""

    name: str = Field("nightly", pattern=r"^[\w.-]+$", description="name of the deployment in Prefect")
    cron: str = Field("30 1 * * *", description="minute hour day month weekday")
    timezone: ZoneName = Field("UTC", description="IANA time zone of the cron line")
    roots: tuple[str, ...] = Field(
        (), description="folders and archives to ingest, besides scans received over the network"
    )
    configs: tuple[str, ...] = Field((), description="run configurations, one per route")
    labels: tuple[str, ...] = Field((), description="label files to import after every ingest")
    tasks: tuple[str, ...] = Field((), description="generative tasks to run at the end of the night")


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
    name: str = "",
) -> Path:
    """Write a request, readable only by its owner, and return its path; a given `name` is overwritten."""
    folder = settings.key_file.parent / "requests"  # beside the crosswalk, where everything identifying is kept
    make_private_folder(folder.parent)
    make_private_folder(folder)
    file = folder / f"{name or uuid.uuid4().hex}.json"
    request = {"roots": list(roots), "configs": list(configs), "labels": list(labels), "tasks": list(tasks)}
    return durable.write(file, json.dumps(request, indent=1), mode=0o600)


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
