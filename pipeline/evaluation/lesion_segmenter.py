"""Whether lesions are where a mask asked for them, by a segmenter trained on images with known masks.

A small U-Net (cross-entropy and soft Dice; Ronneberger et al., arXiv:1505.04597) learns where lesions are. Trained on
real images, it judges drawn ones: is there a lesion in the mask, and nowhere else? Trained on drawn images, it says
what they are worth as training data: does it find lesions in real ones?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.real_images import codes_of
from pipeline.nn.repair import lesion_terms
from pipeline.nn.unet import SmallUNet, UNetFields

NETWORK = UNetFields(widths=(16, 16, 32, 32, 64, 16))
AT_ONCE, STEPS, LR = 16, 500, 2e-3


class LesionSegmenter:
    """A segmenter of lesions, trained once; deterministic, and the global generator is left as it was.

    Args:
        images: [N, C, S, S] about [-1, 1]; S is a multiple of 16, and at least 32.
        masks: [N, 1, S, S], 0 or 1; images without a lesion have an empty one.
        steps: of Adam, on batches of 16, half of them mirrored.
        seed: of weights and batches.

    Raises:
        ConfigError: no mask has a lesion, or a size that the network cannot halve four times.
    """

    def __init__(self, images: Tensor, masks: Tensor, steps: int = STEPS, seed: int = 0) -> None:
        size, multiple = images.shape[-1], NETWORK.multiple
        if size % multiple or size < 2 * multiple or not masks.any():
            raise ConfigError(
                f"A segmenter cannot learn from {len(images)} images of {size} pixels with {int(masks.sum())} pixels "
                f"of lesions. It needs sizes that are multiples of {multiple}, from {2 * multiple} on, and masks."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SmallUNet(2, images.shape[1], 1, NETWORK)
            self._train(images.float(), masks.float(), steps)
        self.network.eval()

    def _train(self, images: Tensor, masks: Tensor, steps: int) -> None:
        optimiser = torch.optim.Adam(self.network.parameters(), LR)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        body = torch.ones(AT_ONCE, 1, *images.shape[2:], dtype=torch.bool)
        for _ in range(steps):
            rows, mirrored = torch.randint(len(images), (AT_ONCE,)), torch.rand(AT_ONCE, 1, 1, 1) < 0.5
            x, mask = (torch.where(mirrored, one[rows].flip(-1), one[rows]) for one in (images, masks))
            loss = lesion_terms(self.network(x).float(), mask, body, dice=1.0)["total"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            schedule.step()

    def find(self, images: Tensor) -> Tensor:
        """Return where lesions are, bool [N, 1, S, S]."""
        with torch.no_grad():
            parts = [self.network(part.float()).float() > 0 for part in images.split(4 * AT_ONCE)]
        return torch.cat(parts)


def dice(marked: Tensor, masks: Tensor) -> np.ndarray:
    """Return the Dice coefficient of each image, [N]: 1 where both are empty, 0 where only one of them is."""
    marked, masks = marked.flatten(1).double(), masks.flatten(1).double()
    both, sizes = (marked * masks).sum(dim=1), marked.sum(dim=1) + masks.sum(dim=1)
    return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).numpy()


def mean_of_patients(values: np.ndarray, patients: Sequence[str], config: EvaluationConfig | None = None) -> Estimate:
    """Return the mean of one value per image [N], with an interval by the patient bootstrap.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners = codes_of(patients)
    sums, counts = np.bincount(owners, values), np.bincount(owners)
    bootstrap = PatientBootstrap.draw(np.zeros(len(counts), int), config or EvaluationConfig())
    sampled = bootstrap.sample(lambda weights: ((weights @ sums) / (weights @ counts))[:, None], len(counts))
    return bootstrap.estimates(sampled)[0]
