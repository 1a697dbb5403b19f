"""Every command explains itself, with an example, at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline.cli import group

ROOT = Path(__file__).resolve().parents[2]


def commands(parent: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in parent.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(group))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_tells_what_it_does_with_an_example(path: tuple[str, ...], nightread: Any) -> None:
    done = nightread(*path, "--help")
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"nightread {' '.join(path)}" in done.output.split("Example", 1)[1]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    for parameter in ALL[path].params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_the_overview_fits_and_cuts_no_sentence(nightread: Any) -> None:
    lines = nightread("--help").output.splitlines()
    assert not [line for line in lines if line.endswith("...") and "Usage" not in line]
    assert max(map(len, lines)) <= 80


def test_commands_that_print_results_can_print_json() -> None:
    silent = {("serve",), ("identity", "rotate"), ("identity", "reveal")}
    for path, command in ALL.items():
        if not isinstance(command, click.Group) and path not in silent:
            assert "--json" in [name for parameter in command.params for name in parameter.opts], path


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipeline.cli import group\n"
        "group(['train', '--help'], standalone_mode=False)\n"
        "slow = {'torch', 'monai', 'mlflow', 'prefect', 'numpy', 'pydantic', 'rich', 'sqlalchemy', 'yaml'}\n"
        "heavy = slow & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    seconds = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    # The processor's time, and the smallest of five: what else the machine does is not the command's doing.
    assert min(seconds) < 0.4


def test_version(nightread: Any) -> None:
    assert nightread("--version").output.strip() == "nightread, version 0.1.0"


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "nightread, version 0.1.0"
