"""Configuration of a run that chooses its own detector (`configs/runs/auto.yaml`), and the reading of any run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.config import Config, parse_config, read_values
from pipeline.data.sets.folds import Fold
from pipeline.data.sets.splits import SplitPolicy
from pipeline.evaluation.config import EvaluationConfig
from pipeline.stages.run.run_config import RunConfig

Reconstructor = Literal["gated_dae", "ladder_vae", "ladder_vq", "cold_diffusion"]


class AutoData(Config):
    """The part of the data that nobody can measure: the route, and who may be in which set."""

    route: str = Field(min_length=1, description="name of the route whose series are read")
    splits: SplitPolicy | None = Field(
        None, description="how patients are divided into sets; null chooses by the number of normal patients"
    )
    drawn_from: Literal["pseudonym", "pixels"] = Field(
        "pseudonym", description="as in SplitPolicy, where `splits` is null: pixels for public data"
    )
    fold: Fold | None = Field(None, description="as in DataConfig: cross-fitting, and never registered")


class AutoMethod(Config):
    """A calibrated ensemble that is chosen by what the route's normal scans look like, and by nothing else."""

    name: Literal["auto"] = "auto"
    budget_minutes: float = Field(
        20.0, ge=0.01, le=600, description="most CPU time of all trainings together, all threads; they may take less"
    )
    reconstructor: Reconstructor | None = Field(
        None, description="the method that repairs images; null chooses by their size and number"
    )


class AutoConfig(Config):
    """Configuration of a run that chooses its own detector: what `nightread train auto` reads."""

    name: str = Field("auto", min_length=1, description="readable name of the run, as in MLflow")
    data: AutoData = Field(description="route and sets")
    method: AutoMethod = Field(AutoMethod(), description="budget, and what need not be chosen")
    seed: int = Field(0, ge=0, description="seed of every training")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="intervals and operating points")


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig | AutoConfig:
    """Read the configuration of a run; its `method.name` says whether it chooses its own detector.

    Raises:
        ConfigError: see `pipeline.config.load_config`.
    """
    values = read_values(path, overrides)
    method = values.get("method")
    if isinstance(method, dict) and method.get("name") == "auto":
        return parse_config(values, AutoConfig, path)
    return parse_config(values, RunConfig, path)
