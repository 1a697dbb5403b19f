"""Components of a site: those that `nightread up` runs, and how each shows that it is alive."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.dicom.network.address import Address
from pipeline.dicom.network.echo import answers_echo
from pipeline.errors import CatalogueError
from pipeline.stages.watch.nights import read_beat
from pipeline.stages.watch.site_config import SiteConfig

ANSWER_SECONDS = 10.0
BEAT_AGE_SECONDS = 300.0
CALLING = "NIGHTREAD"  # our AE title in a check, unless it names another
FOLDER, RUNNING = "up", "running.json"


@dataclass(frozen=True, slots=True)
class Component:
    """One component of the site.

    Attributes:
        name: its name.
        address: where people or machines reach it; "" if nobody does.
        check: http(s)://... that answers, dicom://[CALLING:]AETITLE@host:port that answers C-ECHO, tls://host:port that
            greets, tcp://host:port that accepts, or beat:NAME that is recent.
    """

    name: str
    address: str
    check: str

    def is_up(self, settings: Settings, since: datetime | None = None) -> bool:
        """Whether it shows that it is alive; with `since`, a beat must be as new (UTC without time zone)."""
        kind, _, rest = self.check.partition(":")
        if kind == "beat":
            return _beats(settings, rest, since)
        return {"tcp": _accepts, "tls": _greets, "dicom": _echoes}.get(kind, _answers)(self.check)


def _answers(url: str) -> bool:
    """Whether a page answers; a certificate is not verified, since it is made out to a name and not to 127.0.0.1."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


def _accepts(address: str) -> bool:
    place = urlsplit(address)
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((place.hostname or "", place.port or 0), timeout=ANSWER_SECONDS),
    ):
        return True
    return False


def _greets(address: str) -> bool:
    """Whether a TLS server answers a handshake; a refusal, such as of a caller without a certificate, is an answer."""
    place = urlsplit(address)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=ANSWER_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=place.hostname).close()
    except ssl.SSLError as error:
        return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    except (OSError, ValueError):
        return False
    return True


def _echoes(address: str) -> bool:
    """Whether an application entity answers C-ECHO; without pynetdicom, whether its port accepts."""
    if importlib.util.find_spec("pynetdicom") is None:
        return _accepts(address)
    titles, _, place = address.removeprefix("dicom://").rpartition("@")
    calling, _, called = unquote(titles).rpartition(":")
    parsed = Address.parse(f"{called}@{place}", calling or CALLING)
    return parsed is not None and answers_echo(parsed, ANSWER_SECONDS)


def _beats(settings: Settings, name: str, since: datetime | None) -> bool:
    """Whether a beat is recent; one from the future counts, since only the clock was moved."""
    try:
        with Catalogue.open(settings) as catalogue:
            beat = read_beat(catalogue, name)
    except CatalogueError:
        return False
    if beat is None or (since is not None and beat.beat_at < since):
        return False
    return (now() - beat.beat_at).total_seconds() < BEAT_AGE_SECONDS


@dataclass(frozen=True, slots=True)
class Running:
    """What `nightread up` has started on a workspace; `place` tells the folder from a copy of it."""

    pid: int
    place: str
    started_at: str
    components: tuple[Component, ...]


def place_of(folder: Path) -> str:
    """Return what a copy of a folder does not share with it: its device and inode."""
    status = folder.stat()
    return f"{status.st_dev}:{status.st_ino}"


def write_running(settings: Settings, components: tuple[Component, ...], started_at: datetime) -> Path:
    """Record what runs, for `status` and the watch."""
    folder = settings.workspace / FOLDER
    running = Running(os.getpid(), place_of(folder), started_at.isoformat(), components)
    return durable.write(folder / RUNNING, json.dumps(asdict(running), indent=1), mode=0o600)


def read_running(settings: Settings) -> Running | None:
    """Return what `nightread up` runs on this workspace, or left behind when it was killed; None after a clean stop."""
    folder = settings.workspace / FOLDER
    try:
        values = json.loads((folder / RUNNING).read_text(encoding="utf-8"))
        if values["place"] != place_of(folder):
            return None  # a copy of a workspace in which something ran
        values["components"] = tuple(Component(**one) for one in values["components"])
        return Running(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def list_components(settings: Settings, site: SiteConfig) -> list[Component]:
    """Return the components that should be alive: those of `up`, and those that the site lists under `watch.check`."""
    running = read_running(settings)
    further = [Component(name, address, address) for name, address in site.watch.check.items()]
    return [*(running.components if running else ()), *further]


def check_components(settings: Settings, components: list[Component]) -> Mapping[str, bool]:
    """Return whether each component is alive."""
    return {component.name: component.is_up(settings) for component in components}
