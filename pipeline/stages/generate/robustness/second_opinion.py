"""Second opinion about strangers: how much purification changes an image, and both opinions as one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.methods.base import Method
from pipeline.nn.rng import Rng
from pipeline.stages.generate.robustness.defences import purifications

AT_ONCE = 32


def purification_change(method: Method, x: Tensor, rng: Rng, time: float, steps: int, draws: int = 1) -> np.ndarray:
    """Return the mean absolute change of each image by purification, float64 [N], over several draws.

    Args:
        method: a `ddpm` or `rectified_flow`.
        x: [N, C, S, S].
        rng: one stream per image.
        time: t*.
        steps: of the way back.
        draws: of the noise.

    Raises:
        ConfigError: `time` or `steps` is out of range, or the images have another size.
    """
    (purification,) = purifications(method, [time], steps)
    changes = []
    for first in range(0, len(x), AT_ONCE):
        part, streams = x[first : first + AT_ONCE], rng.rows(range(first, min(first + AT_ONCE, len(x))))
        with torch.no_grad():
            purified = [purification.apply(part, streams.fork(f"draw {number}")) for number in range(draws)]
        changes.append(torch.stack([(part - one).abs().flatten(1).mean(dim=1) for one in purified]).mean(dim=0))
    return torch.cat(changes).double().numpy()


def standardise(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return scores less the median of reference scores, divided by their median absolute deviation."""
    centre = np.median(reference)
    return (scores - centre) / max(float(np.median(np.abs(reference - centre))), 1e-12)
