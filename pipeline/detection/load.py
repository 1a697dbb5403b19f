"""Reading whatever scores: a single detector or an ensemble, as the artefact says."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.detection.artefact import read_sealed
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble import KIND, Ensemble
from pipeline.detection.scorer import Scorer


def load_detector(folder: str | Path, sha256: str | None = None) -> Scorer:
    """Read a detector or an ensemble. Nothing in the folder is executed, and a changed byte is refused.

    Its models are where its configuration wants them: with `device: auto` on the CUDA device, where there is one.

    Args:
        folder: written by `save`.
        sha256: the registered one; given, the folder must be exactly that artefact.

    Raises:
        ArtefactError: a file is missing, altered, of another version, or not the registered one.
    """
    spec = read_sealed(Path(folder), sha256)
    scorer = (Ensemble if spec.get("kind") == KIND else Detector).opened(spec, Path(folder))
    if scorer.config.device == "auto" and torch.cuda.is_available():
        for method in scorer.methods:
            method.to("cuda")
    return scorer
