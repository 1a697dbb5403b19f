"""Models that learned from an erased patient: they cannot unlearn, so runs and the registry say it of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import RunRow
from pipeline.errors import NightreadError
from pipeline.stages.run.learned_patients import read_patients_of
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import tag_versions_of_run

FORGOTTEN = "forgotten"  # in the summary of a run: the erased patients among its own, with their sets
TAG = "forgotten_patients"


@dataclass(frozen=True, slots=True)
class Learned:
    """A training run, and the sets in which an erased patient was; `checkpoints`: its files of training states."""

    run: str
    route: str
    sets: tuple[str, ...]
    checkpoints: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Learned:
        """Return what `to_json` gave."""
        return cls(**{**values, "sets": tuple(values["sets"])})

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"sets": list(self.sets)}


def list_models_of(catalogue: Catalogue, settings: Settings, patients: Collection[str], set_name: str) -> list[Learned]:
    """Return the trainings that had a patient in one of their sets.

    Args:
        catalogue: where the runs are.
        settings: the workspace.
        patients: the patient's pseudonyms, former ones and merged ones included.
        set_name: the patient's set, which stands for runs that did not record their patients: "perhaps SET".
    """
    return list(_learned(catalogue.list_runs("train"), settings, set(patients), set_name))


def _learned(runs: Sequence[RunRow], settings: Settings, patients: set[str], set_name: str) -> Iterator[Learned]:
    for run in runs:
        folder = RunFolder(settings.absolute(run.folder))
        recorded = read_patients_of(folder)
        sets = [name for name, ids in recorded.items() if patients & set(ids)]
        if not recorded and set_name in ("train", "validate", "calibrate"):
            sets = [f"perhaps {set_name}"]
        if sets:
            files = folder.training.rglob("*.safetensors") if folder.training.is_dir() else ()
            yield Learned(run.run_id, run.route, tuple(sets), sum(1 for _ in files))


def flag_models(catalogue: Catalogue, settings: Settings, patient_id: str, learned: Sequence[Learned]) -> list[str]:
    """Say of each run and of its registered versions that it learned from an erased patient; repeating adds nothing.

    Returns sentences on registries that did not answer.
    """
    problems = []
    for one in learned:
        with catalogue.session() as session:
            run = session.get_one(RunRow, one.run)
            forgotten: Mapping[str, Any] = {**run.summary.get(FORGOTTEN, {}), patient_id: list(one.sets)}
            run.summary = {**run.summary, FORGOTTEN: forgotten}
        try:
            tag_versions_of_run(settings, one.route, Path(one.run).name, {TAG: str(len(forgotten))})
        except NightreadError as error:
            problems.append(f"The registry could not flag {one.run}: {error}")
    return problems
