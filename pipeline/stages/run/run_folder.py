"""Run folders: plain files that outlive the database, written atomically.

<workspace>/runs/<run id>/
    config.json  data.json  mlflow.json     configuration, data, MLflow run (and model version)
    training/                                checkpoints and the history of terms
    findings.safetensors  findings.png       what it learned from in unlabelled scans; in runs with `unlabelled`
    model/                                   the trained model; missing in a run that uses other runs' models
    uncalibrated/  detector/                 the detector before and after calibration: JSON that names models
    scores/  heatmaps/  evaluation/          outputs of the detector
    scoring/                                 maps of scoring runs that have not ended
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline import durable
from pipeline.config import Settings
from pipeline.detection.detector_file import CALIBRATED, UNCALIBRATED, check_detector, read_detector
from pipeline.errors import ArtefactError
from pipeline.invalid_values import explain
from pipeline.sealed_folder import MODEL, read_sealed
from pipeline.types import RunRef

if TYPE_CHECKING:
    from pipeline.stages.run.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; see the module's docstring for its files."""

    path: Path

    @classmethod
    def find(cls, settings: Settings, run_id: str) -> RunFolder:
        """Return the folder of a run by its id, which may be shortened to an unambiguous prefix.

        Raises:
            ArtefactError: no run or several match.
        """
        matches = [p for p in settings.runs.glob(f"{run_id}*") if p.is_dir()] if run_id else []
        exact = [p for p in matches if p.name == run_id]
        if len(exact or matches) != 1:
            raise ArtefactError(
                f"{len(matches)} runs match {run_id!r}, but exactly one is needed. List them with nightread runs"
            )
        return cls((exact or matches)[0])

    @classmethod
    def open(cls, ref: RunRef) -> RunFolder:
        """Return the folder that a reference points to.

        Raises:
            ArtefactError: the folder is missing.
        """
        folder = cls(Path(ref.path))
        if not (folder.path / "config.json").exists():
            raise ArtefactError(f"The run folder of {folder.run_id} is missing or incomplete. Train the run again.")
        return folder

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def training(self) -> Path:
        """Checkpoints."""
        return self.path / "training"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.path / MODEL

    @property
    def uncalibrated(self) -> Path:
        """The detector before calibration."""
        return self.path / UNCALIBRATED

    @property
    def detector(self) -> Path:
        """The calibrated detector."""
        return self.path / CALIBRATED

    def read_tracked(self) -> dict[str, str]:
        """Return the MLflow run, and the model's version if there is one; {} where the file is missing or damaged."""
        try:
            return dict(self.read("mlflow.json"))
        except (ArtefactError, TypeError, ValueError):
            return {}

    def read_trained(self) -> RunRef:
        """Return the run with the SHA-256 of its training result, after checking every byte of it.

        The result is the uncalibrated detector with its models, or the model of a run without `detection`.

        Raises:
            ArtefactError: something is missing or altered.
        """
        if self.read_config().detection is not None:
            return RunRef(str(self.path), check_detector(self.uncalibrated))
        return RunRef(str(self.path), read_sealed(self.model).sha256)

    def is_trained(self) -> bool:
        """Return whether the training result exists and is intact, which a power cut may prevent."""
        try:
            return bool(self.read_trained())
        except ArtefactError:
            return False

    def read_calibrated(self) -> RunRef:
        """Return the run with the SHA-256 of its calibrated detector.

        Raises:
            ArtefactError: it is not calibrated yet.
            ConfigError: the run has no `detection`.
        """
        self.read_config().require_detection()
        return RunRef(str(self.path), read_detector(self.detector).sha256)

    def read_config(self) -> RunConfig:
        """Return the configuration of the run.

        Raises:
            ArtefactError: it is missing or damaged, or another release wrote it.
        """
        from pipeline.stages.run.run_config import RunConfig  # imports torch, which most readers do not need

        try:
            return RunConfig.model_validate(self.read("config.json"))
        except ValidationError as error:
            what = explain(error, f"config.json of the run {self.run_id}")
            raise ArtefactError(f"{what}\nTrain the run again, or use the release that made it.") from None

    def write(self, name: str, value: Any) -> None:
        """Write JSON atomically."""
        self.write_text(name, json.dumps(value, indent=2, default=str))

    def write_text(self, name: str, text: str) -> None:
        """Write text atomically: neither a stopped night nor a power cut leaves half a file."""
        durable.write(self.path / name, text)

    def read(self, name: str) -> Any:
        """Read JSON.

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        remedy = "Repeat nightread train with its configuration, which mends a run, or restore it from a backup."
        return read_json(self.path / name, f"The run {self.run_id}", remedy)


def read_json(file: Path, owner: str, remedy: str) -> Any:
    """Read a JSON file of a run or of a task.

    Raises:
        ArtefactError: the file is missing or damaged; the message begins with its owner and ends with the remedy.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{owner} has no readable {file.name} ({type(error).__name__}). {remedy}") from None
