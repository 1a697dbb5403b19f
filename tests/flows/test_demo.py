"""The screen of the demo: steps, the table of results beside the controls, and paths that lead somewhere."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.demo import CONFIG
from flows.demo_screen import better_directions, name_methods, print_places, print_results, read_report
from pipeline.config import load_config
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.results import ScoreRow
from pipeline.stages.run.run_config import RunConfig


def row(name: str, auroc: float) -> ScoreRow:
    return ScoreRow(name=name, control=True, metrics={"AUROC": Estimate(value=auroc, low=None, high=None, resamples=0)})


def test_each_control_appears_once_in_its_better_direction_best_first() -> None:
    rows = [row("std", 0.45), row("negative std", 0.55), row("noise", 0.7), row("negative noise", 0.3)]
    assert [(one.name, one.metrics["AUROC"].value) for one in better_directions(rows)] == [
        ("noise", 0.7),
        ("negative std", 0.55),
    ]


@pytest.fixture
def evaluated(night: Any) -> Path:
    """The run folder that the session's night evaluated."""
    (report,) = night[0].runs.glob("*/evaluation/develop/report.json")
    return report.parents[2]


def test_the_table_shows_the_detector_above_the_controls_and_what_was_flagged(evaluated: Path) -> None:
    screen = io.StringIO()
    flagged = Counter({("abnormal", True): 2, ("abnormal", False): 1, ("normal", True): 1, ("normal", False): 7})
    print_results(Console(file=screen, width=112), evaluated, flagged)
    lines = [line.split() for line in screen.getvalue().splitlines() if line.split()]
    names = [words[0] for words in lines if words[-1] in ("8", "-")]
    assert names[0] == "ae" and len(names) >= 5
    (model,) = (" ".join(words) for words in lines if words[0] == "ae")
    assert model.endswith("2 of 3 1 of 8")


def test_members_of_an_ensemble_stand_between_it_and_the_controls(evaluated: Path, tmp_path: Path) -> None:
    report = read_report(evaluated)
    table = report.tables[0]
    member = table.rows[0].model_copy(update={"name": "member"})
    report = report.model_copy(
        update={"tables": (table.model_copy(update={"rows": (table.rows[0], member, *table.rows[1:])}),)}
    )
    place = tmp_path / "evaluation" / "develop"
    place.mkdir(parents=True)
    (place / "report.json").write_text(report.model_dump_json())
    screen = io.StringIO()
    print_results(Console(file=screen, width=112), tmp_path, Counter())
    names = [words[0] for words in map(str.split, screen.getvalue().splitlines()) if words and words[-1] in ("0", "-")]
    assert names[:2] == ["ae", "member,"] and len(names) >= 5


def test_the_demo_trains_one_model_of_each_family() -> None:
    assert name_methods(load_config(CONFIG, RunConfig)) == ["ladder_vae", "ladder_vq", "cold_diffusion"]


def test_the_picture_that_the_demo_names_is_there(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, workspace = io.StringIO(), evaluated.parents[1]
    monkeypatch.chdir(workspace.parent)
    print_places(Console(file=screen, width=112), workspace, evaluated)
    (place,) = (line.split()[-1] for line in screen.getvalue().splitlines() if line.startswith("A picture"))
    assert not Path(place).is_absolute() and Path(place).is_file()
