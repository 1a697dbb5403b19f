"""Samplers between noise and image with one noise stream, and optionally one time, per row.

Notation of the papers: alpha_bar[t] is the cumulative signal power, eps the predicted noise, x_t the noisy image.
MONAI's schedulers supply alpha_bar and the forward process. Their `step` is not used for the way back, because it draws
one noise for the whole batch (a row would depend on its neighbours), and because `set_timesteps` of their DDIM spaces
the steps by (T - 1) / (N - 1) while `step` assumes T // N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.nn.rng import Rng

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, *spatial], t int64 [B]) -> eps of the same shape
Times = Sequence[int] | Tensor  # decreasing times, either shared by all rows or int64 [steps, B]
Keep = Callable[[Tensor, Tensor], Tensor]  # (x_s, its signal power) -> x_s with its fixed part restored


def time_grid(start: int, steps: int) -> list[int]:
    """Return `steps` (or `start` + 1 if that is less) decreasing times from `start`, evenly spaced towards -1.

    Time -1 is the clean image, so that all steps are equally long: 249 in 5 steps is 249, 199, 149, 99, 49.
    """
    steps = min(steps, start + 1)
    return [round(start - k * (start + 1) / steps) for k in range(steps)]


def row_times(times: Times, rows: int) -> Tensor:
    """Return int64 [steps + 1, rows]: the times of every row, and -1 (the clean image) at the end."""
    grid = times if isinstance(times, Tensor) else torch.tensor(times, dtype=torch.int64)[:, None].expand(-1, rows)
    return torch.cat([grid, grid.new_full((1, rows), -1)])


def power(alpha_bar: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return the signal power at times t [B], 1 at time -1, shaped to broadcast against `like` [B, ...]."""
    signal = torch.where(t >= 0, alpha_bar[t.clamp_min(0)], 1.0)
    return signal.reshape(-1, *[1] * (like.ndim - 1))


def denoise(
    predict: Denoiser,
    alpha_bar: Tensor,
    x_t: Tensor,
    times: Times,
    rng: Rng,
    eta: float = 0.0,
    limit: float | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Denoise x_t from `times[0]` to the clean image (arXiv:2010.02502, eq. 12 and 16).

    Args:
        predict: the noise predictor.
        alpha_bar: [T].
        x_t: noisy images at time `times[0]`.
        times: decreasing; the last step leads to the clean image.
        rng: used only if `eta` > 0.
        eta: 0 is DDIM, 1 is the ancestral sampler of DDPM (arXiv:2006.11239, eq. 7 with the lower variance).
        limit: the predicted clean image is clipped to [-limit, limit]; None for no limit.
        keep: called after each step; for inpainting (arXiv:2201.09865, eq. 8).
    """
    grid = row_times(times, len(x_t)).to(x_t.device)
    for i, (now, after) in enumerate(pairwise(grid)):
        signal, signal_after = power(alpha_bar, now, x_t), power(alpha_bar, after, x_t)
        noise = rng if i < len(grid) - 2 else None  # the last step adds none
        x_t = stride(x_t, predict(x_t, now), signal, signal_after, noise, eta, limit)
        x_t = x_t if keep is None else keep(x_t, signal_after)
    return x_t


def denoise_until_still(
    predict: Denoiser, alpha_bar: Tensor, x_t: Tensor, times: Times, change: float, limit: float | None = None
) -> tuple[Tensor, Tensor]:
    """Denoise by DDIM, stopping each row as soon as its predicted clean image would change by less than `change`.

    The change is estimated as the mean absolute difference to the previous step times the remaining steps. A row's
    result depends on that row alone.

    Returns:
        The clean images, and the number of denoiser calls per row, int64 [B].
    """
    grid = row_times(times, len(x_t)).to(x_t.device)
    result, last, rows = x_t.clone(), torch.full_like(x_t, torch.inf), torch.arange(len(x_t), device=x_t.device)
    calls = torch.zeros_like(rows)
    for left, (now, after) in zip(range(len(grid) - 2, -1, -1), pairwise(grid), strict=True):
        signal, signal_after = (power(alpha_bar, t[rows], x_t) for t in (now, after))
        calls[rows] += 1
        x_0, eps = split(x_t, predict(x_t, now[rows]), signal, limit)
        x_t = signal_after.sqrt() * x_0 + (1 - signal_after).sqrt() * eps
        result[rows] = x_0
        moving = left * (x_0 - last).abs().flatten(1).mean(dim=1) >= change
        rows, x_t, last = rows[moving], x_t[moving], x_0[moving]
        if not len(rows):
            break
    return result, calls


def split(x_t: Tensor, eps: Tensor, signal: Tensor, limit: float | None) -> tuple[Tensor, Tensor]:
    """Return the predicted clean image, clipped, and the noise that goes with it."""
    x_0 = (x_t - (1 - signal).sqrt() * eps) / signal.sqrt()
    if limit is None:
        return x_0, eps
    x_0 = x_0.clamp(-limit, limit)
    return x_0, (x_t - signal.sqrt() * x_0) / (1 - signal).sqrt()


def stride(
    x_t: Tensor, eps: Tensor, signal: Tensor, signal_after: Tensor, rng: Rng | None, eta: float, limit: float | None
) -> Tensor:
    """Take one step from signal power `signal` to `signal_after` (arXiv:2010.02502, eq. 12; sigma as in eq. 16)."""
    x_0, eps = split(x_t, eps, signal, limit)
    sigma = eta * ((1 - signal_after) / (1 - signal) * (1 - signal / signal_after)).sqrt()
    x_s = signal_after.sqrt() * x_0 + (1 - signal_after - sigma**2).clamp_min(0).sqrt() * eps
    if rng is None or eta == 0:
        return x_s
    return x_s + sigma * rng.normal(*x_t.shape[1:])


def invert(predict: Denoiser, alpha_bar: Tensor, x_0: Tensor, times: Times) -> Tensor:
    """Invert a clean image to time `times[0]` by DDIM run backwards (arXiv:2010.02502, section 4.3, eq. 14).

    `denoise` over the same times reverses it; the error of the round trip decreases with the number of steps. The noise
    of the clean image, on which no denoiser was trained, is predicted at the lowest of the times.

    Args:
        predict, alpha_bar: as in `denoise`.
        x_0: clean images.
        times: decreasing, as in `denoise`.
    """
    grid = row_times(times, len(x_0)).to(x_0.device).flip(0)
    x_t = x_0
    for now, after in pairwise(grid):
        eps = predict(x_t, torch.where(now >= 0, now, after))
        clean, eps = split(x_t, eps, power(alpha_bar, now, x_t), None)
        signal = power(alpha_bar, after, x_t)
        x_t = signal.sqrt() * clean + (1 - signal).sqrt() * eps
    return x_t
