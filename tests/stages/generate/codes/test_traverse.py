"""The task `traverse`: rows of one dimension each, and how much of which attribute each dimension knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.stages.generate.codes.code_factors import SHUFFLED, measure_factors, warn_of_gap
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import TraverseTask, load_task_as
from tests.stages.conftest import Hospital


def test_dimensions_are_drawn_measured_and_listed(hospital: Hospital, task_file: Path) -> None:
    task = load_task_as(TraverseTask, task_file, ["factors=[relative_position]", "rows=3", "count=40"])
    report = run_task(task, hospital.settings)
    assert report.folder.sheet.read_bytes().startswith(b"\x89PNG")
    dimensions, factors = (block.splitlines()[2:] for block in report.table.split("\n\n"))
    assert len(dimensions) == 3 and sum("relative_position" in line for line in dimensions) == 1
    assert [line.split("|")[1].strip() for line in factors] == ["vae", "eigen-images", SHUFFLED]
    assert report.metrics["mig"] == report.metrics["gap_relative_position"]
    assert 0 <= report.metrics["active_dimensions"] <= 4


@pytest.mark.parametrize(
    ("override", "names"), [("dimensions=[1, 7]", "4 dimensions.*7"), ("factors=[modality]", "modality")]
)
def test_what_the_code_or_the_images_lack_is_said(
    hospital: Hospital, task_file: Path, override: str, names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        run_task(load_task_as(TraverseTask, task_file, [override]), hospital.settings)


def test_a_dimension_that_knows_the_position_alone_has_the_larger_gap() -> None:
    rng = np.random.default_rng(0)
    position = rng.uniform(size=400)
    about = [{"relative_position": float(one)} for one in position]
    codes = np.stack([rng.normal(size=400), position, rng.normal(size=400)], axis=1)
    images = np.stack([position + rng.normal(size=400), rng.normal(size=400), position], axis=1)
    gaps = measure_factors("own", codes, images, about, ("relative_position",))
    assert gaps["own"].dimension == {"relative_position": 1}
    assert gaps["own"].gap > 0.7 > gaps["eigen-images"].gap > gaps[SHUFFLED].gap
    assert warn_of_gap(gaps) == []
    assert len(warn_of_gap({"own": gaps[SHUFFLED], "eigen-images": gaps["eigen-images"]})) == 1
    with pytest.raises(ConfigError, match="age_band"):
        measure_factors("own", codes, images, about, ("age_band",))
