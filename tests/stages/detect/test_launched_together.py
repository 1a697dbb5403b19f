"""`accelerate launch --num_processes 2 -m pipeline.cli train`: one run, recorded once, the model of one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError

LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0", "-m")
TRAIN = ("pipeline.cli", "train")


def _train(settings: Settings, config: Path, *launch: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NIGHTREAD_WORKSPACE": str(settings.workspace), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, *TRAIN, str(config), "-s", "training.seed=7"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_processes_write_one_run_with_the_model_of_one(trained: Any, phantom_night: Any, tmp_path: Path) -> None:
    results = {}
    for name, launch in {"alone": ("-m",), "together": LAUNCH}.items():
        settings = Settings(workspace=tmp_path / name, workers=1)
        shutil.copytree(trained.settings.workspace, settings.workspace)
        earlier = {folder.name for folder in settings.runs.iterdir()}
        done = _train(settings, phantom_night.config, *launch)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("registered phantom-mr version 2") == 1, done.stdout
        (run,) = {folder.name for folder in settings.runs.iterdir()} - earlier
        with Catalogue.open(settings) as catalogue:
            assert [row.state for row in catalogue.list_runs("train") if row.run_id == run] == ["done"]
        results[name] = load_file(settings.runs / run / "model" / "weights.safetensors")
    for name, value in results["alone"].items():
        torch.testing.assert_close(results["together"][name], value, rtol=0, atol=5e-3, msg=name)


def test_auto_is_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.training.processes import refuse_several

    monkeypatch.setenv("WORLD_SIZE", "3")
    refuse_several("train auto")  # another program's variable alone says nothing
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match="train auto cannot be shared by the 3 processes"):
        refuse_several("train auto")
