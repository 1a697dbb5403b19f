"""The screen of the demo: steps, the table of results beside the controls, and paths that lead somewhere."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.demo_screen import better_directions, print_places, print_results
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.results import ScoreRow


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


def test_the_picture_that_the_demo_names_is_there(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, workspace = io.StringIO(), evaluated.parents[1]
    monkeypatch.chdir(workspace.parent)
    print_places(Console(file=screen, width=112), workspace, evaluated)
    (place,) = (line.split()[-1] for line in screen.getvalue().splitlines() if line.startswith("A picture"))
    assert not Path(place).is_absolute() and Path(place).is_file()
