"""A run's folder: plain files that outlive the database. Results in it are written atomically.

<workspace>/runs/<run id>/
    config.json  data.json  mlflow.json     what was asked, on which data, where it is tracked
    training/                                checkpoints and the history of terms
    model/                                   the trained model; a run that names other runs' models has none
    uncalibrated/  detector/                 the detector before and after calibration: JSON that names models
    scores/  heatmaps/  evaluation/          what the detector said
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import durable
from pipeline.config import Settings
from pipeline.detection.detector_file import CALIBRATED, DETECTOR, UNCALIBRATED, check_detector, read_detector
from pipeline.errors import ArtefactError
from pipeline.sealed_folder import MODEL, file_sha256, read_sealed, sealed_sha256
from pipeline.types import RunRef

if TYPE_CHECKING:
    from pipeline.stages.run.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; see the module's docstring for what lies where."""

    path: Path

    @classmethod
    def of(cls, settings: Settings, run_id: str) -> RunFolder:
        """Return the folder of a run by its id, which may be shortened to any unambiguous beginning.

        Raises:
            ArtefactError: no run, or several, begin so.
        """
        found = [p for p in settings.runs.glob(f"{run_id}*") if p.is_dir()] if run_id else []
        exact = [p for p in found if p.name == run_id]
        if len(exact or found) != 1:
            raise ArtefactError(f"{len(found)} runs begin with {run_id!r}; name exactly one. See: nightread runs")
        return cls((exact or found)[0])

    @classmethod
    def behind(cls, ref: RunRef) -> RunFolder:
        """Return the folder that a reference points to.

        Raises:
            ArtefactError: the folder is gone.
        """
        folder = cls(Path(ref.path))
        if not (folder.path / "config.json").exists():
            raise ArtefactError(f"The run folder of {folder.run_id} is gone or incomplete. Train it again.")
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

    def read_trained(self) -> RunRef:
        """Return the run with the SHA-256 of what training left, after checking every byte of it.

        That is the uncalibrated detector with its models, or the model of a run without `detection`.

        Raises:
            ArtefactError: something is missing or altered.
        """
        if self.config().detection is not None:
            return RunRef(str(self.path), check_detector(self.uncalibrated))
        read_sealed(self.model)
        return RunRef(str(self.path), sealed_sha256(self.model))

    def is_trained(self) -> bool:
        """Whether what training left is there and whole: after a power cut it may be neither."""
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
        self.config().require_detection()
        read_detector(self.detector)
        return RunRef(str(self.path), file_sha256(self.detector / DETECTOR))

    def config(self) -> RunConfig:
        """Return the configuration that the run was made with."""
        from pipeline.stages.run.run_config import RunConfig  # imports torch, which most readers do not need

        return RunConfig.model_validate(self.read("config.json"))

    def write(self, name: str, value: Any) -> None:
        """Write JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2, default=str))

    def write_text(self, name: str, text: str) -> None:
        """Write text, whole or not at all: neither a stopped night nor a power cut leaves half a file."""
        durable.write(self.path / name, text)

    def read(self, name: str) -> Any:
        """Read JSON.

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtefactError(
                f"The run {self.run_id} has no readable {name} ({type(error).__name__}). Restore it from a backup, or "
                "train again: nightread train CONFIG --again"
            ) from None
