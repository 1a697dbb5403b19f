"""Facts of a saved detector that need no neural network: its methods' names and its calibration. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.detection.conformal import Calibration
from pipeline.detection.detector_file import read_detector
from pipeline.errors import ArtefactError


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """The names of a detector's methods (one; several for an ensemble), and its calibration, if it has one."""

    methods: tuple[str, ...]
    calibration: Calibration | None


def read_facts(folder: Path, sha256: str | None = None) -> DetectorFacts:
    """Read the facts of a detector or an ensemble, after the same check of every byte as in `load_detector`.

    Building the network takes seconds (it imports torch and MONAI), and texts about a finding do not need it.

    Args:
        folder: written by `save_detector`, or a run folder.
        sha256: the registered one; if given, the folder must be exactly that detector.

    Raises:
        ArtefactError: a file is missing, altered, of another version, or not the registered one.
    """
    detector = read_detector(folder, sha256)
    models = detector.read_models()
    try:
        names = tuple(str(model.spec["method"]["config"]["name"]) for model in models)
        calibration = detector.spec["calibration"]
        return DetectorFacts(names, None if calibration is None else Calibration.model_validate(calibration))
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtefactError(
            f"The detector's specification does not fit this release ({type(error).__name__}). Train it again."
        ) from None
