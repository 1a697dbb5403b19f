"""Errors are one sentence with the next step and an exit code; never a traceback, never an identity."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import DEBUG


def assert_error(done: Any, code: int, *words: str) -> None:
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.output
    for word in words:
        assert word in done.stderr


def test_a_missing_configuration(nightread: Any) -> None:
    assert_error(nightread("train", "missing.yaml"), 2, "missing.yaml", "no such file", "Give an existing YAML file")


def test_a_configuration_with_an_unknown_field(nightread: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: x\ntraning: {images: 3}\n")
    assert_error(nightread("train", "run.yaml"), 2, "traning", "run.yaml")


def test_an_override_of_nothing(nightread: Any, phantom_night: Any) -> None:
    assert_error(nightread("train", phantom_night.config, "-s", "images"), 2, "'images'", "section.field=value")


def test_training_without_data(nightread: Any, phantom_night: Any) -> None:
    done = nightread("train", phantom_night.config)
    assert_error(done, 9, "no normal scans to train on", "nightread labels import")


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_no_model_yet(nightread: Any, command: str) -> None:
    assert_error(nightread(command), 7, "No route has a model yet", "nightread train")
    assert_error(nightread(command, "--route", "ct"), 7, "The route 'ct' has no model yet")


@pytest.mark.parametrize("command", [["score", "--run"], ["evaluate", "--run"], ["promote"]])
def test_an_unknown_run(nightread: Any, command: list[str]) -> None:
    assert_error(nightread(*command, "nope"), 7, "0 runs", "nope", "nightread runs")


def test_the_findings_of_an_unknown_run(nightread: Any) -> None:
    assert_error(nightread("flagged", "--run", "nope"), 5, "no run 'nope'", "nightread runs")


def test_labels_that_cannot_be_read(nightread: Any, tmp_path: Path) -> None:
    done = nightread("labels", "import", "Doe^Jane.csv")
    assert_error(done, 2)
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    assert_error(nightread("labels", "import", "wrong.csv"), 2, "label")


def test_a_folder_that_is_not_there(nightread: Any) -> None:
    assert_error(nightread("ingest", ".", "nowhere", "--json"), 2, "nowhere does not exist", "nothing was ingested")


def test_an_unknown_pseudonym(nightread: Any) -> None:
    assert_error(nightread("identity", "reveal", "0" * 32), 4)


def test_a_broken_settings_file(nightread: Any, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "settings.yaml").write_text("colour: blue\n")
    assert_error(nightread("runs"), 2, "settings.yaml", "colour")


def test_a_broken_schedule(nightread: Any, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("timezone: Mars/Olympus\n")
    assert_error(nightread("serve", "--schedule", "s.yaml"), 2, "IANA time zone")


def test_an_unforeseen_error_is_reported_without_its_text(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Catalogue, kind: str | None = None) -> None:
        raise KeyError("Doe^Jane")

    monkeypatch.setattr(Catalogue, "list_runs", broken)
    done = nightread("runs")
    assert_error(done, 70, "KeyError", DEBUG)
    assert "Doe" not in done.output
    monkeypatch.setenv(DEBUG, "1")
    assert isinstance(nightread("runs").exception, KeyError)


@pytest.mark.parametrize(
    ("place", "named"),
    [("workspace/runs/one/a/../config.json", True), ("workspace/inbox/Doe", False), ("Doe.dcm", False)],
)
def test_a_refusal_of_the_machine_is_not_called_a_fault(
    nightread: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, named: bool
) -> None:
    def full(self: Catalogue, kind: str | None = None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / place))

    monkeypatch.setattr(Catalogue, "list_runs", full)
    done = nightread("runs")
    assert_error(done, 12, "No space left", "Free disk space")
    assert ("runs/one/config.json" in done.output) is named
    assert "Doe" not in done.output


def test_the_process_ends_with_the_code_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "-w", "ws", "train", "missing.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_option_is_clicks_own_error(nightread: Any) -> None:
    done = nightread("score", "--rout", "x")
    assert done.exit_code == 2
    assert "--route" in done.stderr  # it says which option may have been meant


def test_an_automatic_run_needs_its_route_and_nothing_else_has_a_budget(nightread: Any, phantom_night: Any) -> None:
    alone, other = nightread("train", "auto"), nightread("train", phantom_night.config, "--budget", "5")
    assert alone.exit_code == other.exit_code == 2
    assert "--route" in alone.stderr and "--budget" in other.stderr
    assert_error(nightread("train", "auto", "--route", "phantom-mr", "--budget", "0"), 2, "budget_minutes")
