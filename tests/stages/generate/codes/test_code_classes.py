"""Categories of an infogan beside k-means, through a run on phantoms."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.stages.detect.train import train
from pipeline.stages.generate.codes.code_classes import measure_code_classes
from pipeline.stages.generate.task_config import SampleTask
from tests.stages.conftest import Hospital

METHOD = {"name": "infogan", "widths": (8, 16), "latent": 4, "categories": 4, "hidden": 8, "gan_share": 0.5}


def test_all_rows_judge_the_same_held_out_images(task: SampleTask, hospital: Hospital) -> None:
    config = task.run.model_validate(task.run.model_dump() | {"name": "tiny-infogan", "method": METHOD})
    run = Path(train(config, hospital.settings).path).name
    rows = measure_code_classes(hospital.settings, run, ["sex"])
    assert [row.sorted_by for row in rows] == ["infogan", "k-means on pixels", "k-means on frozen features"]
    assert len({(row.images, row.classes, row.categories) for row in rows}) == 1
    assert rows[0].classes >= 2 and rows[0].categories == 4
    assert all(row.low <= row.accuracy <= row.high for row in rows)
    assert all(row.information_low <= row.information <= row.information_high for row in rows)
    with pytest.raises(ConfigError, match="modality"):
        measure_code_classes(hospital.settings, run, ["modality"])  # every phantom is an MR


def test_a_run_without_categories_is_refused(task: SampleTask, hospital: Hospital) -> None:
    run = Path(train(task.run, hospital.settings).path).name
    with pytest.raises(ConfigError, match="vae"):
        measure_code_classes(hospital.settings, run, ["sex"])
