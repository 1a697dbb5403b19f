"""A run that a stage has open: what it reads and writes, carried as one value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import Cache, SliceDataset
from pipeline.data.sets.selection import Selection
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef, SetName


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """A run's folder within a workspace, while a stage works on it; the run need not be trained yet.

    Attributes:
        folder: of the run.
        config: that the run is made with.
        catalogue: open for as long as the stage runs.
        settings: the workspace.
    """

    folder: RunFolder
    config: RunConfig
    catalogue: Catalogue
    settings: Settings

    @property
    def route(self) -> str:
        """The run's route."""
        return self.config.data.route

    def choose(self, sets: Sequence[SetName] | None = None, study_ids: Collection[str] | None = None) -> Selection:
        """Choose slices of the run's route; see `pipeline.stages.run.load_slices.choose`."""
        return choose(self.catalogue, self.config, self.settings, sets=sets, study_ids=study_ids)

    def dataset(self, selection: Selection, cache: Cache | None = None, whole: bool | None = None) -> SliceDataset:
        """Return the normalised slices of a selection; see `pipeline.stages.run.load_slices.dataset`."""
        return dataset(selection, self.config, self.settings, cache, whole)


@dataclass(frozen=True, slots=True)
class OpenRun(OpenFolder):
    """A trained run and its detector, while a stage works on them.

    Attributes:
        ref: the run and the SHA-256 of its detector or training result.
        detector: the calibrated one, or the one before calibration.
    """

    ref: RunRef
    detector: Scorer

    @classmethod
    def load(cls, ref: RunRef, catalogue: Catalogue, settings: Settings) -> Self:
        """Read a calibrated run.

        Raises:
            ArtefactError: the folder is gone, or the detector is not the one of that SHA-256.
        """
        folder = RunFolder.open(ref)
        return cls(folder, folder.read_config(), catalogue, settings, ref, load_detector(folder.detector, ref.sha256))

    @classmethod
    def load_uncalibrated(cls, ref: RunRef, catalogue: Catalogue, settings: Settings) -> Self:
        """Read a trained run with its detector before calibration.

        Raises:
            ArtefactError: the folder is gone, or the detector is missing or damaged.
        """
        folder = RunFolder.open(ref)
        return cls(folder, folder.read_config(), catalogue, settings, ref, load_detector(folder.uncalibrated))

    def using(self, detector: Scorer) -> Self:
        """Return the run with another detector, such as the same one with its calibration."""
        return replace(self, detector=detector)
