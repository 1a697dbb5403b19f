"""What one night is asked to do, kept in a private file: Prefect stores a flow's parameters and shows them around.

A folder may bear a patient's name, so flows are given the path of the request, and read the paths of scans from it.
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
from pipeline.dicom.identity.keyfile import private_folder


class Schedule(Config):
    """When the night runs, and on what: `configs/schedules/*.yaml`."""

    name: str = Field("nightly", pattern=r"^[\w.-]+$", description="deployment name in Prefect")
    cron: str = Field("30 1 * * *", description="minute hour day month weekday")
    timezone: ZoneName = Field("UTC", description="IANA name; the clock that cron means")
    roots: tuple[str, ...] = Field((), description="folders and archives to ingest, besides what was received")
    configs: tuple[str, ...] = Field((), description="run configurations, one a route")
    labels: tuple[str, ...] = Field((), description="label files to import after every ingest")


def read_request(file: str) -> Schedule:
    """Return what a request file asks for.

    Raises:
        ConfigError: it cannot be read.
    """
    return load_config(file, Schedule)


def roots_of(request: str, workspace: str) -> list[str]:
    """Return the folders and archives to ingest: those of the request, and what came over the network.

    Studies that `nightread listen` and `nightread pull` found complete are always among them, asked for or not.

    Raises:
        ConfigError: request or settings cannot be read.
    """
    asked, received = list(read_request(request).roots), Settings.load(workspace).inbox / "complete"
    if not received.is_dir() or any(received.is_relative_to(root) for root in asked):
        return asked
    return [*asked, str(received)]


def write_request(
    settings: Settings, roots: Sequence[str], configs: Sequence[str], labels: Sequence[str], name: str = ""
) -> Path:
    """Write a request, readable by nobody else, and return its path; a given `name` is overwritten."""
    folder = settings.key_file.parent / "requests"  # beside the crosswalk, where everything identifying is kept
    private_folder(folder.parent)
    private_folder(folder)
    file = folder / f"{name or uuid.uuid4().hex}.json"
    request = {"roots": list(roots), "configs": list(configs), "labels": list(labels)}
    return durable.write(file, json.dumps(request, indent=1), mode=0o600)


@contextmanager
def requested(
    workspace: str, roots: Sequence[str], configs: Sequence[str] = (), labels: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the path of a request that is there while the block runs."""
    file = write_request(Settings.load(workspace), roots, configs, labels)
    try:
        yield str(file)
    finally:
        file.unlink(missing_ok=True)
