"""Walks from noise to image with one noise stream per row.

Notation of the papers: alpha_bar[t] is the cumulative signal power, eps the predicted noise, x_t the noisy image.
MONAI's schedulers supply alpha_bar and the forward process. Their `step` is not used for the way back, because it draws
one noise for the whole batch (a row would depend on its neighbours), and because `set_timesteps` of their DDIM spaces
the steps by (T - 1) / (N - 1) while `step` supposes T // N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.nn.rng import Rng

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, *spatial], t int64 [B]) -> eps of the same shape


def time_grid(start: int, steps: int) -> list[int]:
    """Return `steps` (or `start` + 1 if that is less) falling times from `start`, evenly spaced towards -1.

    Time -1 is the clean image, so that every stride is as long as the next: 249 in 5 steps is 249, 199, 149, 99, 49.
    """
    steps = min(steps, start + 1)
    return [round(start - k * (start + 1) / steps) for k in range(steps)]


def denoise(
    predict: Denoiser,
    alpha_bar: Tensor,
    x_t: Tensor,
    times: Sequence[int],
    rng: Rng,
    eta: float = 0.0,
    limit: float | None = None,
) -> Tensor:
    """Walk x_t at `times[0]` down to the clean image (arXiv:2010.02502, eq. 12 and 16).

    Args:
        predict: the noise predictor.
        alpha_bar: [T].
        x_t: noisy images at time `times[0]`.
        times: falling; the last stride leads to the clean image.
        rng: drawn from only when `eta` > 0.
        eta: 0 is DDIM, 1 is the ancestral sampler of DDPM (arXiv:2006.11239, eq. 7 with the lower variance).
        limit: the predicted clean image is clipped to [-limit, limit]; None leaves it.
    """
    for now, after in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x_t),), now, dtype=torch.int64, device=x_t.device)
        eps = predict(x_t, t)
        signal, signal_after = alpha_bar[now], alpha_bar[after] if after >= 0 else alpha_bar.new_ones(())
        x_t = stride(x_t, eps, signal, signal_after, rng if after >= 0 else None, eta, limit)
    return x_t


def stride(
    x_t: Tensor, eps: Tensor, signal: Tensor, signal_after: Tensor, rng: Rng | None, eta: float, limit: float | None
) -> Tensor:
    """Take one step from signal power `signal` to `signal_after` (arXiv:2010.02502, eq. 12; sigma as in eq. 16)."""
    x_0 = (x_t - (1 - signal).sqrt() * eps) / signal.sqrt()
    if limit is not None:
        x_0 = x_0.clamp(-limit, limit)
        eps = (x_t - signal.sqrt() * x_0) / (1 - signal).sqrt()
    sigma = eta * ((1 - signal_after) / (1 - signal) * (1 - signal / signal_after)).sqrt()
    x_s = signal_after.sqrt() * x_0 + (1 - signal_after - sigma**2).clamp_min(0).sqrt() * eps
    if rng is None or eta == 0:
        return x_s
    return x_s + sigma * rng.normal(*x_t.shape[1:])
