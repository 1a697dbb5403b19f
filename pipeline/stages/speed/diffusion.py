"""`nightread benchmark diffusion RUN`: the cost of scoring with a trained diffusion model, and ways to reduce it."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any

import torch

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.detector import Detector
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.ddpm import DiffusionModel
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.speed.diffusion_cost import measure_diffusion_cost


def measure_diffusion_speed(
    settings: Settings, run_id: str, images: int = 16, rounds: int = 3, compiled: bool = False
) -> list[dict[str, Any]]:
    """Return one row per way to score, measured on validate normals of the run.

    See `measure_diffusion_cost` for the columns.

    Raises:
        ConfigError: the run's method is not a plain ddpm.
        EmptySelection: the run has no validate normals.
    """
    folder = RunFolder.find(settings, run_id)
    method = _diffusion_model(folder)
    config = folder.read_config()
    with Catalogue.open(settings) as catalogue:
        data = dataset(choose(catalogue, config, settings, sets=["validate"]), config, settings, cache="none")
    if not len(data):
        raise EmptySelection(f"The run {run_id} has no validate normals to measure on. Use another run.")
    x = torch.stack([data[i]["image"] for i in islice(range(len(data)), images)])
    return [asdict(row) for row in measure_diffusion_cost(method, x, rounds, compiled=compiled)]


def _diffusion_model(folder: RunFolder) -> DiffusionModel:
    scorer = load_detector(folder.uncalibrated)
    method = scorer.method if isinstance(scorer, Detector) else None
    if not isinstance(method, DiffusionModel) or method.spatial_dims != 2:
        raise ConfigError(
            "The run's model is not a ddpm of slices. Choose a run trained with, for example, --set method.name=ddpm."
        )
    return method
