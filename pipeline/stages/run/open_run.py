"""A run that a stage has open: what it reads and writes, carried as one value."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef


@dataclass(frozen=True, slots=True)
class OpenRun:
    """One calibrated run within a workspace, while a stage works on it.

    Attributes:
        ref: the run and the SHA-256 of its detector.
        folder: of the run.
        config: that the run was made with.
        detector: the calibrated one.
        catalogue: open for as long as the stage runs.
        settings: the workspace.
    """

    ref: RunRef
    folder: RunFolder
    config: RunConfig
    detector: Scorer
    catalogue: Catalogue
    settings: Settings

    @classmethod
    def load(cls, ref: RunRef, catalogue: Catalogue, settings: Settings) -> OpenRun:
        """Read a calibrated run.

        Raises:
            ArtefactError: the folder is gone, or the detector is not the one of that SHA-256.
        """
        folder = RunFolder.behind(ref)
        return cls(ref, folder, folder.config(), load_detector(folder.detector, ref.sha256), catalogue, settings)
