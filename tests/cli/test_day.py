"""A user's day at the command line, in the order of the help; each test passes alone, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group


@pytest.fixture(scope="module")
def day(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained phantom hospital: the day scores its inbox, and others need it unscored."""
    workspace = tmp_path_factory.mktemp("day") / "workspace"
    shutil.copytree(trained.settings.workspace, workspace, ignore=shutil.ignore_patterns("prefect"))
    return workspace


@pytest.fixture(scope="module")
def finished(day: Path) -> Path:
    """The day's workspace, scored and evaluated."""
    for command in (["score", "--again"], ["evaluate"]):
        done = CliRunner().invoke(group, ["-w", str(day), *command])
        assert done.exit_code == 0, done.output
    return day


def json_of(done: Any) -> Any:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_ingest_counts_and_takes_nothing_in_twice(nightread: Any, phantom_night: Any) -> None:
    assert json_of(nightread("ingest", "--json", phantom_night.inbox))["added"] == 6
    done = nightread("ingest", phantom_night.inbox)
    assert done.exit_code == 0
    assert "6 files: 0 new" in done.stdout
    assert "6 seen before" in done.stdout


def test_rejections_are_listed_by_pseudonym(nightread: Any, tmp_path: Path) -> None:
    (tmp_path / "Doe^Jane.dcm").write_bytes(b"this is not a DICOM file, whatever its name says " * 10)
    assert nightread("ingest", "Doe^Jane.dcm").exit_code == 0
    rows = json_of(nightread("rejections", "--json"))
    assert [row["code"] for row in rows] == ["not-dicom"]
    assert "Doe" not in json.dumps(rows)
    revealed = json_of(nightread("rejections", "--reveal", "--json"))
    assert "Doe^Jane.dcm" in revealed[0]["path"]


def test_labels_show(nightread: Any, day: Path, phantom_night: Any) -> None:
    rows = json_of(nightread("labels", "show", "--json", workspace=day))
    assert len(rows) == 48 + 8  # one row per study, and one per slice of the abnormal ones
    assert phantom_night.planted not in json.dumps(rows)


def test_train_again_is_a_look_up(nightread: Any, day: Path, phantom_night: Any, trained: Any) -> None:
    done = nightread("train", phantom_night.config, workspace=day)
    assert done.exit_code == 0
    assert "Trained and registered phantom-mr version 1" in done.stdout
    assert json_of(nightread("train", phantom_night.config, "--json", workspace=day))["n"] == trained.report.n


def test_runs_name_the_champion(nightread: Any, day: Path, trained: Any) -> None:
    rows = json_of(nightread("runs", "--kind", "train", "--json", workspace=day))
    assert [row["run"] for row in rows] == [Path(trained.report.run.path).name]
    assert rows[0]["model"].startswith("1")
    assert "champion" in rows[0]["model"]
    assert "champion" in nightread("runs", workspace=day).stdout


def test_promote_accepts_the_beginning_of_a_run(nightread: Any, day: Path, trained: Any) -> None:
    run = Path(trained.report.run.path).name
    answer = json_of(nightread("promote", run[:-3], "--json", workspace=day))
    assert answer["route"] == "phantom-mr"
    assert (answer["run"], answer["version"], answer["replaced"], answer["report"]) == (run, "1", "1", None)
    assert "Version 1" in nightread("promote", run, workspace=day).stdout


def test_score_then_flagged(nightread: Any, day: Path, phantom_night: Any) -> None:
    first = json_of(nightread("score", "--again", "--json", workspace=day))
    assert [(one["route"], one["studies"], one["flagged"]) for one in first] == [("phantom-mr", 6, 2)]
    again = nightread("score", workspace=day)
    assert "phantom-mr: 0 studies scored, 0 flagged.\n  There was nothing new to score." in again.stdout
    assert "nightread evaluate" in again.stdout, "labelled studies are left out, and a newcomer must learn it"
    rows = json_of(nightread("flagged", "--json", workspace=day))
    assert len(rows) == 2
    assert len(json_of(nightread("flagged", "--all", "--json", workspace=day))) == 6
    table = nightread("flagged", workspace=day).stdout
    assert rows[0]["study"] in table
    assert "more unusual" in table
    assert phantom_night.planted.lower() not in table.lower()


def test_evaluate_prints_the_report_and_its_json(nightread: Any, finished: Path) -> None:
    done = nightread("evaluate", workspace=finished)
    assert done.exit_code == 0, done.output
    assert "# Evaluation" in done.stdout
    assert "control" in done.stdout  # law 3: the trivial controls are listed beside the model
    assert json_of(nightread("evaluate", "--json", workspace=finished))[0]["set_name"] == "develop"


def test_runs_tell_what_came_out(nightread: Any, finished: Path) -> None:
    summaries = {row["kind"]: row["summary"] for row in json_of(nightread("runs", "--json", workspace=finished))}
    assert summaries["train"] == "208 images seen"
    assert "6 studies, 2 flagged" in [
        row["summary"].rpartition(",")[0] for row in json_of(nightread("runs", "--json", workspace=finished))
    ]
    assert summaries["evaluate"].startswith("AUROC 0.")


def test_a_table_in_a_pipe_has_one_line_a_row(nightread: Any, day: Path) -> None:
    lines = nightread("labels", "show", workspace=day).stdout.splitlines()
    assert len(lines) == 1 + 48 + 8
    assert not [line for line in lines if line != line.rstrip()]


def test_empty_lists_say_what_to_do(nightread: Any) -> None:
    assert "nightread score" in nightread("flagged").stdout
    assert "nightread train" in nightread("runs").stdout
    assert "nightread labels import" in nightread("labels", "show").stdout
    assert "Nothing was rejected" in nightread("rejections").stdout
    assert json_of(nightread("flagged", "--json")) == []
