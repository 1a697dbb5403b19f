"""Members of an ensemble that are trained first: their runs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ArtefactError
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

DATA = {"route": "phantom-mr", "normaliser": {"kind": "mr_percentile", "image_size": 64}, "cache": "disk"}
KNN = {"name": "knn_features", "entries": 64}


def ensemble(*members: Any) -> RunConfig:
    own = {"training": {"images": 500, "batch_size": 4}, "detection": {"batch_size": 8}}
    method = {"name": "ensemble", "members": list(members)}
    return RunConfig.model_validate({"name": "both", "data": DATA, "method": method, **own})


def test_a_member_has_its_own_method_and_detection_and_all_else_of_the_ensemble() -> None:
    own = {"method": KNN, "training": {"batch_size": 2}, "detection": {"residual": {"median": 3}}}
    config = ensemble({"run": "a"}, {"train": own})
    run = config.build_member_run(own)
    assert run.name == "both-knn_features" and run.method.entries == 64
    assert run.data == config.data
    assert (run.training.images, run.training.batch_size) == (500, 2)
    assert (run.detection.batch_size, run.detection.residual.median) == (8, 3)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "member",
    [
        {},
        {"run": "a", "train": {"method": KNN}},
        {"train": {"detection": {}}},
        {"train": {"method": KNN, "data": DATA}},
        {"train": {"method": KNN | {"entries": 0}}},
        {"train": {"method": {"name": "ensemble", "members": [{"run": "a"}, {"run": "b"}]}}},
    ],
    ids=["neither", "both", "no method", "other data", "out of range", "an ensemble"],
)
def test_a_member_that_is_not_one_run_of_the_same_data_is_refused(member: Any) -> None:
    with pytest.raises(ValidationError):
        ensemble({"run": "a"}, member)


def test_a_configuration_of_another_release_is_refused_by_its_fields(tmp_path: Path) -> None:
    folder, values = RunFolder(tmp_path), ensemble({"run": "a"}, {"run": "b"}).model_dump(mode="json")
    folder.write("config.json", values)
    assert folder.read_config().name == "both"
    values["detection"]["residual"]["no_longer"] = False
    folder.write("config.json", values)
    with pytest.raises(ArtefactError, match=r"detection\.residual\.no_longer"):
        folder.read_config()
