"""Commands of the components: what `nightread up` starts, on which ports, and with which environment."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.stages.watch.components import CALLING, FOLDER, Component, place_of
from pipeline.stages.watch.site_config import ComponentName, SiteConfig

HOST = "127.0.0.1"
MARK = "NIGHTREAD_COMPONENT"  # in the environment of everything that a component starts
FLAGS = {
    "prefect": "--prefect-port",
    "mlflow": "--mlflow-port",
    "review": "--review-port",
    "listener": "--dicom-port",
    "watch": "--metrics-port",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One component and how to start it.

    Attributes:
        component: its name, address and check.
        command: the program and its arguments; nothing secret, since every user of the machine can read them.
        environment: variables besides those of `nightread up` itself.
        folder: working directory.
        port: its port, None if it has none.
        after: name of the component that must be healthy before it starts, "" for none.
        keeps_children: whether what it started may outlive it, such as a night whose scheduler died.
    """

    component: Component
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    port: int | None = None
    after: str = ""
    keeps_children: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.component.name

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)


def mark_of(settings: Settings, name: str = "") -> str:
    """Return the mark of a component's processes, or without a name the beginning of all marks of this workspace."""
    return f"{place_of(settings.workspace / FOLDER)}/{name}"


def plan(
    settings: Settings, site: SiteConfig, only: Sequence[ComponentName] = (), file: Path | None = None
) -> list[Part]:
    """Return the parts to start, in the order of starting.

    A Prefect server that PREFECT_API_URL names, and an MLflow server that the settings name, are used as they are and
    not started.

    Args:
        settings: settings of the workspace.
        site: its components, ports, schedules and options.
        only: start these components only.
        file: where the site was read, if not in the workspace; the watch reads it too.

    Raises:
        ConfigError: `only` names a component that the site does not have.
    """
    if unknown := set(only) - set(site.components):
        raise ConfigError(
            f"The site has no component {', '.join(sorted(unknown))}. It has {', '.join(site.components)}: choose "
            "among them, or list it under components in site.yaml."
        )
    chosen = [name for name in site.components if not only or name in only]
    if os.environ.get("PREFECT_API_URL"):
        chosen = [name for name in chosen if name != "prefect"]
    if (settings.mlflow_uri or "").startswith("http"):
        chosen = [name for name in chosen if name != "mlflow"]
    makers = {"prefect": _prefect, "schedules": _schedules, "mlflow": _mlflow, "review": _review}
    makers |= {"listener": _listener, "watch": partial(_watch, file=file)}
    return [makers[name](settings, site, "prefect" in chosen) for name in chosen]


# Those in memory, the default, are lost with the machine: the slot of a night that died with it stays taken for ever.
LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def _nightread(settings: Settings, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pipeline.cli", "-w", str(settings.workspace), *arguments)


def _prefect(settings: Settings, site: SiteConfig, _: bool) -> Part:
    port = site.ports.prefect
    url = f"http://{HOST}:{port}"
    environment = {
        "PREFECT_HOME": str(settings.workspace / "prefect"),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),  # its pages ask the address that the variable says
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "DO_NOT_TRACK": "1",
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port))
    return Part(Component("prefect", url, f"{url}/api/health"), command, environment, port=port)


def _schedules(settings: Settings, site: SiteConfig, with_prefect: bool) -> Part:
    files = [argument for file in site.schedules for argument in ("--schedule", str(_beside(settings, file)))]
    environment = {"PREFECT_HOME": str(settings.workspace / "prefect"), "DO_NOT_TRACK": "1"}
    if with_prefect:
        environment["PREFECT_API_URL"] = f"http://{HOST}:{site.ports.prefect}/api"
    return Part(
        Component("schedules", "", "beat:schedules"),
        _nightread(settings, "serve", *files),
        environment,
        after="prefect" if with_prefect else "",
        keeps_children=True,
    )


def _beside(settings: Settings, file: Path) -> Path:
    """Return a schedule file beside `site.yaml` if it is there; else its own path, which may be a shipped one."""
    own = settings.workspace / file
    return own if own.is_file() else file


def _mlflow(settings: Settings, site: SiteConfig, _: bool) -> Part:
    port, folder = site.ports.mlflow, settings.workspace / "mlflow"
    url = f"http://{HOST}:{port}"
    environment = {
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow,  # it may hold a password, and arguments can be read by everybody
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = (sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1")
    return Part(Component("mlflow", url, f"{url}/health"), command, environment, str(folder), port)


def _review(settings: Settings, site: SiteConfig, _: bool) -> Part:
    port, options = site.ports.review, site.review_options
    scheme = "https" if "--tls-cert" in options else "http"
    url = f"{scheme}://{_option(options, '--host') or HOST}:{port}"
    reached = url.replace("://0.0.0.0:", f"://{HOST}:").replace("://[::]:", f"://{HOST}:")
    command = _nightread(settings, "review", "start", "--port", str(port), *options)
    return Part(Component("review", url, f"{reached}/health"), command, port=port)


def _listener(settings: Settings, site: SiteConfig, _: bool) -> Part:
    port, options = site.ports.listener, site.listen_options
    host, title = _option(options, "--host") or HOST, _option(options, "--ae-title") or "NIGHTREAD"
    reached = HOST if host in ("0.0.0.0", "::") else host
    if host == HOST and not any(option.startswith("--allow") for option in options):
        options = (*options, "--allow-any")  # nothing outside this machine reaches it
    command = _nightread(settings, "listen", "--port", str(port), *options)
    # The check calls by a title that may call; a listener with TLS is not asked for more than its greeting.
    calling = quote(_option(options, "--allow") or CALLING)
    check = f"dicom://{calling}:{quote(title)}@{reached}:{port}"
    if _option(options, "--tls-cert"):
        check = f"tls://{reached}:{port}"
    return Part(Component("listener", f"{title}@{host}:{port}", check), command, port=port)


def _watch(settings: Settings, site: SiteConfig, _: bool, file: Path | None) -> Part:
    port, further = site.ports.watch, () if file is None else ("--site", str(file.absolute()))
    command = _nightread(settings, "watch", "--metrics-port", str(port), *further)
    return Part(Component("watch", f"http://{HOST}:{port}/metrics", "beat:watch"), command, port=port)


def _option(options: Sequence[str], name: str) -> str:
    """Return the value of an option, as `--name value` or `--name=value`; "" if it is not given."""
    for option, following in zip(options, (*options[1:], ""), strict=False):
        if option == name:
            return following
        if option.startswith(f"{name}="):
            return option.removeprefix(f"{name}=")
    return ""


def check_ports(parts: Sequence[Part]) -> None:
    """Check that every port is free, before anything starts.

    Raises:
        ConfigError: a port is in use; it names the port, the component, the process if it may be seen, and the option.
    """
    for part in parts:
        if part.port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left counts as free
            try:
                probe.bind((HOST, part.port))
            except OSError as error:
                raise ConfigError(
                    f"Port {part.port} of {part.name} cannot be used ({error.strerror}{_holder(part.port)}). Stop what "
                    f"uses it, or choose another port: nightread up {FLAGS[part.name]} PORT"
                ) from None


def _holder(port: int) -> str:
    """Return the process that listens on a port, as far as this user may see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            return f", by process {one.pid}"
    return ""
