"""Training: one loop that knows phases, bitwise resume, early stopping on held-out normals."""

from __future__ import annotations

from pipeline.training.config import TrainingConfig
from pipeline.training.fitting import FitResult, TrainingRecord, fit
from pipeline.training.loop import StepRecord, train
from pipeline.training.state import TrainState

__all__ = ["FitResult", "StepRecord", "TrainState", "TrainingConfig", "TrainingRecord", "fit", "train"]
