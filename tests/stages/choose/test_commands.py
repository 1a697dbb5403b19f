"""`nightread compare` and `nightread grid`, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef

pytestmark = pytest.mark.slow  # two measured runs, and a registered model


def typed(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(group, ["-w", str(settings.workspace), *arguments])


@pytest.fixture(scope="module")
def runs(hospital: Any, evaluated_run: RunRef) -> tuple[str, str]:
    """The same weights under L1 and L2."""
    residual = (before := RunFolder.open(evaluated_run).read_config().detection).residual
    squared = before.model_copy(update={"residual": residual.model_copy(update={"kind": "l2"})})
    other = calibrate(rescore(evaluated_run, squared, hospital.settings), hospital.settings, to_registry=False).run
    evaluate(other, hospital.settings)
    return Path(evaluated_run.path).name, Path(other.path).name


def test_compare(hospital: Any, runs: tuple[str, str]) -> None:
    done = typed(hospital.settings, "compare", *runs, "--non-inferiority", "0.2", "--alpha", "0.05", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["first"], answer["second"], answer["part"]) == (*runs, "all")
    assert answer["comparisons"][0]["test"].startswith("Obuchowski")
    assert answer["comparisons"][1]["test"] == "paired patient bootstrap"
    for comparison in answer["comparisons"]:
        assert comparison["non_inferiority"]["margin"] == 0.2
        assert comparison["non_inferiority"]["alpha"] == 0.05
        assert comparison["patients"] > 10
    text = typed(hospital.settings, "compare", *runs, "--central").stdout
    assert "central slices" in text and "DeLong (independent units)" in text  # one central slice per patient here
    refused = typed(hospital.settings, "compare", *runs, "--set", "test")
    assert refused.exit_code == 7
    assert "has no scores on test" in refused.stderr


def test_grid_adopts_its_best(hospital: Any, runs: tuple[str, str]) -> None:
    adopted = typed(hospital.settings, "grid", runs[0], "--kind", "l1", "--criterion", "auroc", "--adopt")
    assert adopted.exit_code == 0, adopted.output
    assert "best auroc on develop" in adopted.stdout.lower()
    assert "Trained and registered phantom-mr version" in adopted.stdout
    given = ("--kind", "l1", "--criterion", "auroc", "--hysteresis", "2", "--json")
    listed = typed(hospital.settings, "grid", runs[0], *given)
    answer = json.loads(listed.stdout)
    assert answer["adopted"] is None
    assert len(answer["cells"]) > 10 and {cell["hysteresis"] for cell in answer["cells"]} == {1.0, 2.0}
    assert answer["best"]["transform"] in ("none", "two_sided")
