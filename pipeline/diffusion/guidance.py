"""Classifier-free guidance: Ho and Salimans, arXiv:2207.12598."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.diffusion.sampling import Denoiser

ConditionalDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, t, c [B, width]) -> eps


def guided(predict: ConditionalDenoiser, c: Tensor, nothing: Tensor, weight: float) -> Denoiser:
    """Return the denoiser eps~(x_t) = (1 + w) eps(x_t, c) - w eps(x_t, nothing) (eq. 6).

    w = 0 is the conditional model and w = -1 the unconditional one, each at the cost of one pass; any other w costs a
    batch of twice the rows.

    Args:
        predict: the conditional network; it may predict eps, v or x_0, since conversion between them is affine and
            the two weights sum to 1.
        c: [B, width], one condition per row.
        nothing: [B, width], the empty condition, trained by hiding attributes.
        weight: w.
    """
    if weight in (0.0, -1.0):
        alone = c if weight == 0.0 else nothing
        return lambda x_t, t: predict(x_t, t, alone)
    both = torch.cat([c, nothing])

    def combined(x_t: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return (1 + weight) * conditional - weight * unconditional

    return combined
