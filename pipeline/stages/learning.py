"""What a run learns from, and the folder that is this configuration on this data."""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.data.catalogue import Catalogue
from pipeline.data.dataset import fingerprint
from pipeline.data.selection import Selection
from pipeline.stages.config import RunConfig
from pipeline.stages.run_folder import RunFolder
from pipeline.stages.selecting import choose
from pipeline.types import SetName

LEARNING: dict[SetName, str] = {"train": "training", "validate": "validation"}  # set -> its name in MLflow


def learning_sets(config: RunConfig, settings: Settings, catalogue: Catalogue) -> dict[SetName, Selection]:
    """Return what a run learns from: its train and validate normals."""
    return {name: choose(catalogue, config, settings, sets=(name,)) for name in LEARNING}


def folder_of(config: RunConfig, sets: dict[SetName, Selection], settings: Settings, again: bool = False) -> RunFolder:
    """Return the folder of this configuration on this data, made unless it is there; a fresh one with `again`."""
    data = fingerprint([ref for chosen in sets.values() for ref in chosen.slices])
    run_id = f"{config.data.route}-{config.method.name}-{config.fingerprint()[:6]}{data['sha256'][:6]}"
    folder, number = RunFolder(settings.runs / run_id), 2
    while again and folder.path.exists():
        folder, number = RunFolder(settings.runs / f"{run_id}-{number}"), number + 1
    if not (folder.path / "config.json").exists():
        folder.write("data.json", {name: fingerprint(chosen.slices) for name, chosen in sets.items()})
        folder.write("config.json", config.model_dump(mode="json"))
    return folder
