"""Flow `train`: learn normality, calibrate, register. `python -m flows.train CONFIG`"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from prefect import flow, task

from flows import WORKSPACE
from flows.names import train_name
from flows.night_log import log_text, progress_into_log
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.stages.auto.train_auto import train_run
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.model_report import read_model_report
from pipeline.stages.run.auto_config import load_run
from pipeline.types import RunRef


@task(name="train-method", timeout_seconds=24 * HOUR, **STEADY)
def train_method(config: str, workspace: str) -> dict[str, str]:
    """Train, or reuse the run with the same configuration and data; an interrupted run resumes where it stopped."""
    with keep_discreet(), progress_into_log():
        return asdict(train_run(load_run(config), Settings.load(workspace), progress=True, say=log_text))


@task(name="calibrate", timeout_seconds=4 * HOUR, **STEADY)
def calibrate_run(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Calibrate on held-out normals and register the detector; a run that is calibrated already gives the
    same report.
    """
    with keep_discreet():
        return calibrate(RunRef(**run), Settings.load(workspace)).to_json()


@flow(name="train", flow_run_name=train_name, **QUIET)
def train(config: str, workspace: str) -> dict[str, Any]:
    """Train and calibrate one detector; a run without `detection` ends with its model."""
    run = train_method(config, workspace)
    model = read_model_report(RunRef(**run))
    return model.to_json() if model is not None else calibrate_run(run, workspace)


if __name__ == "__main__":
    train(sys.argv[1], str(WORKSPACE))
