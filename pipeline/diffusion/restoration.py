"""Inpainting of a part of an image from its surroundings: the masked second pass of AutoDDPM (arXiv:2305.19643)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.diffusion.process import Process
from pipeline.diffusion.sampling import Denoiser, denoise, time_grid
from pipeline.nn.rng import Rng


def suspect(residual: Tensor, body: Tensor | None, share: float, smooth: int) -> Tensor:
    """Return the pixels of the body whose smoothed residual is among its highest `share`: bool [B, 1, *spatial].

    Args:
        residual: [B, 1, *spatial].
        body: bool of that shape; None for all pixels. An empty body has no suspicious pixels.
        share: share of the body's pixels, 0 to 1.
        smooth: edge of the mean filter in pixels, odd.
    """
    pool = F.avg_pool2d if residual.ndim == 4 else F.avg_pool3d
    values = pool(residual, smooth, stride=1, padding=smooth // 2, count_include_pad=False)
    inside = torch.ones_like(values, dtype=torch.bool) if body is None else body
    values = values.masked_fill(~inside, -torch.inf)
    rank = values.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = (share * inside.flatten(1).sum(dim=1, keepdim=True)).round()
    return (rank < count).reshape(values.shape) & inside


def masked_restoration(
    process: Process, predict: Denoiser, x: Tensor, mask: Tensor, start: int, steps: int, rng: Rng
) -> Tensor:
    """Return x with the masked part inpainted; outside the mask it equals x bit for bit.

    After every step the part outside the mask is replaced by x noised to that time (arXiv:2201.09865, eq. 8), with
    one noise image for all steps, so that DDIM stays on one deterministic path.

    Args:
        process: the forward process.
        predict: the noise predictor.
        x: [B, C, *spatial].
        mask: bool [B, 1, *spatial], True where to inpaint.
        start, steps: time that the image is noised to, and DDIM steps from there.
        rng: one stream per row.
    """
    eps = process.noise(rng)
    t = torch.full((len(x),), start, dtype=torch.int64, device=x.device)

    def keep(x_s: Tensor, signal: Tensor) -> Tensor:
        return torch.where(mask, x_s, signal.sqrt() * x + (1 - signal).sqrt() * eps)

    alpha_bar = process.alpha_bar.to(x.device)
    x_hat = denoise(
        predict, alpha_bar, process.noised(x, eps, t), time_grid(start, steps), rng, limit=process.limit, keep=keep
    )
    return torch.where(mask, x_hat, x)
