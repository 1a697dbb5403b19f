"""Comparison of two runs on the same units, from their stored scores, without scoring anything."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from pipeline.config import Config, Settings
from pipeline.errors import ArtefactError, ConfigError
from pipeline.evaluation.compare import Comparison, compare
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.table import select_central
from pipeline.stages.run.run_folder import RunFolder

Part = Literal["all", "central"]


class RunComparison(Config):
    """Result of comparing two runs.

    Attributes:
        first, second: run ids; every difference is first minus second.
        set_name: develop or test.
        part: all units, or the central slices.
        unit: slice or study.
        comparisons: by the test that suits the units, then by the paired patient bootstrap, which needs no formula.
    """

    first: str
    second: str
    set_name: str
    part: Part
    unit: str
    comparisons: tuple[Comparison, ...]

    def to_text(self) -> str:
        """Return the comparison in words, one line per test."""
        what = f"{self.set_name} set, {'central slices' if self.part == 'central' else f'all {self.unit} units'}"
        head = f"{self.first} against {self.second}, {what}:"
        return "\n".join([head, *(f"  {comparison.sentence}" for comparison in self.comparisons)])


def compare_runs(
    first: str,
    second: str,
    settings: Settings,
    *,
    set_name: Literal["develop", "test"] = "develop",
    part: Part = "all",
    margin: float | None = None,
    alpha: float = 0.025,
) -> RunComparison:
    """Compare the AUROC of two evaluated runs.

    DeLong's test if every unit is a different patient, else Obuchowski's, and also the paired patient bootstrap.

    Args:
        first, second: run ids, or unambiguous prefixes.
        settings: the workspace.
        set_name: the set of the stored scores; comparing does not open it.
        part: all units, or only the central slices.
        margin: adds a non-inferiority test of `first` against `second` with this margin of AUROC.
        alpha: one-sided level of that test.

    Raises:
        ArtefactError: a run does not exist, or was not evaluated on this set.
        ConfigError: the two were evaluated on different units, or margin or alpha is out of range.
        EmptySelection: too few units of a class.
    """
    folders = [RunFolder.find(settings, name) for name in (first, second)]
    units = {folder.run_id: folder.read_config().unit for folder in folders}
    if len(folders) == 2 and folders[0].path == folders[1].path:
        raise ConfigError(
            f"Both names mean the run {folders[0].run_id}. Choose two runs from nightread runs --kind train"
        )
    if len(set(units.values())) > 1:
        described = " and ".join(f"{name} in {unit} units" for name, unit in units.items())
        raise ConfigError(f"{described} were evaluated, but only scores of the same units can be compared.")
    config = folders[0].read_config().evaluation
    frame = join_scores(*(read_stored_scores(folder, set_name) for folder in folders), tuple(units))  # type: ignore[call-arg]  # two folders
    if part == "central":
        frame = select_central(frame, config)
    names = [folder.run_id for folder in folders]
    return RunComparison(
        first=names[0],
        second=names[1],
        set_name=set_name,
        part=part,
        unit=folders[0].read_config().unit,
        comparisons=tuple(_both_tests(frame, names, config, margin, alpha)),
    )


def _both_tests(
    frame: pd.DataFrame, names: list[str], config: EvaluationConfig, margin: float | None, alpha: float
) -> list[Comparison]:
    first, second = names
    exact = compare(frame, first, second, config, margin=margin, alpha=alpha)
    return [exact, compare(frame, first, second, config, test="bootstrap", margin=margin, alpha=alpha)]


def read_stored_scores(folder: RunFolder, set_name: str) -> pd.DataFrame:
    """Return the scores of a run's units as written by its evaluation; pseudonyms are text.

    Raises:
        ArtefactError: the run was not evaluated on this set.
    """
    file = folder.path / "evaluation" / set_name / "scores.csv"
    if not file.exists():
        option = " --open-test PURPOSE" if set_name == "test" else ""
        raise ArtefactError(
            f"The run {folder.run_id} has no scores on {set_name}. Evaluate it first with nightread evaluate --run "
            f"{folder.run_id}{option}"
        )
    return pd.read_csv(file, dtype={name: str for name in ("unit_id", "patient_id", "study_id", "series_id")})


def join_scores(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """Return one frame with both scores, in columns `names`, unit by unit.

    Raises:
        ConfigError: units, their patients or their labels differ.
    """
    left, right = (frame.set_index("unit_id") for frame in (first, second))
    alone = [len(left.index.difference(right.index)), len(right.index.difference(left.index))]
    if any(alone):
        raise ConfigError(
            f"The two runs were evaluated on different units: {len(left)} and {len(right)}, of which {alone[0]} are "
            f"only in the first and {alone[1]} only in the second. Only scores of the same units can be compared. "
            "Evaluate both again on the current data."
        )
    right = right.loc[left.index]
    for column in ("patient_id", "label"):
        if changed := int((left[column] != right[column]).sum()):
            raise ConfigError(
                f"{changed} of {len(left)} units have another {column} in the second run: the data changed between the "
                "two evaluations. Evaluate both again."
            )
    columns = left.drop(columns=[name for name in left if name == "score" or str(name).startswith("control:")])
    return columns.assign(**{names[0]: left["score"], names[1]: right["score"]}).reset_index()
