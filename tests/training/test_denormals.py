"""Training rounds denormals to zero for speed, and leaves the process as it found it."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.methods.ae import AeConfig
from pipeline.stages.speed.training_ratio import RandomImages
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import train
from pipeline.training.state import TrainState


def test_the_process_keeps_its_denormals() -> None:
    state = TrainState(AeConfig(widths=(8, 16), hidden=16).build(32), TrainingConfig(images=8, batch_size=4))
    steps = train(state, RandomImages(8, 32), 8)
    next(steps)
    smallest = np.float32(1e-40)
    assert float(smallest * np.float32(1)) > 0  # between steps
    assert float(torch.tensor(smallest) * 1) > 0
    assert len(list(steps)) == 1
    assert float(smallest * np.float32(1)) > 0
