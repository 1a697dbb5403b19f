"""Unit files and compose.yaml of the documentation: what they start exists, and systemd accepts them."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml

from pipeline.cli import group
from pipeline.stages.watch.site_config import SiteConfig

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "assets" / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])


def parse(arguments: list[str]) -> None:
    """Let click read a command line as `nightread` would, without running it."""
    context = group.make_context("nightread", list(arguments), resilient_parsing=False)
    command: click.Command = group
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("nightread", rest, parent=context)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_of_compose_starts_a_command_that_exists(name: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][name]
    if service["command"][0] == "nightread":
        parse(service["command"][1:])
    assert {"image", "build", "restart", "volumes"} <= set(service)  # by the merge with its template
    assert service["environment"]["NIGHTREAD_WORKSPACE"] == "/data"
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:") or name == "listener"
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])


def test_the_site_inside_compose_is_valid_and_checks_services_that_exist() -> None:
    site = SiteConfig.model_validate(yaml.safe_load(COMPOSE["configs"]["site"]["content"]))
    hosts = {urlsplit(address).hostname for address in site.watch.check.values()}
    assert hosts == set(site.watch.check) and hosts <= set(COMPOSE["services"])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_starts_a_command_that_exists(unit: Path) -> None:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes="#", inline_comment_prefixes=None)
    parser.read(unit)
    if unit.suffix == ".timer":
        assert unit.with_suffix(".service") in UNITS
        return
    program, *arguments = parser["Service"]["ExecStart"].split()
    assert program.endswith("/nightread")
    parse(arguments)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS:  # program and user are the site's own, and not on this machine
        text = unit.read_text().replace("/opt/nightread/bin/nightread", "/bin/true")
        (tmp_path / unit.name).write_text("\n".join(line for line in text.splitlines() if not line.startswith("User=")))
    done = subprocess.run(
        [tool, "verify", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, timeout=120
    )
    if "Failed to" in done.stderr and "bus" in done.stderr:
        pytest.skip(f"systemd-analyze does not run here: {done.stderr[:200]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
