"""Repainting a region: in each step the network sees the walk inside the mask and the noised scan outside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.restoration import masked_restoration, suspect
from pipeline.nn.rng import Rng


def test_in_every_step_the_outside_is_the_scan_noised_to_that_time() -> None:
    # RePaint, eq. 8: without it the painted part would not fit its surroundings.
    process = Process(ProcessConfig(noise="gaussian"), (1, 8, 8), limit=1.0)
    x, mask = Rng([1]).uniform(1, 8, 8) - 0.5, torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 2:5, 2:5] = True
    seen: list[tuple[int, Tensor]] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((int(t), x_t.clone()))
        return torch.zeros_like(x_t)

    x_hat = masked_restoration(process, predict, x, mask, start=400, steps=4, rng=Rng([7]))
    eps = process.noise(Rng([7]))
    assert [t for t, _ in seen] == [400, 300, 200, 99]
    for t, x_t in seen:
        noised = process.noised(x, eps, torch.tensor([t]))
        assert_close(x_t[~mask], noised[~mask])
        assert t == 400 or (x_t[mask] - noised[mask]).abs().mean() > 0.05
    assert torch.equal(x_hat[~mask], x[~mask]) and not torch.equal(x_hat[mask], x[mask])


def test_the_highest_residuals_of_the_body_are_suspect() -> None:
    residual = torch.arange(16.0).reshape(1, 1, 4, 4)
    body = residual < 12
    assert residual[suspect(residual, body, 0.25, 1)].tolist() == [9, 10, 11]  # a quarter of twelve
    assert residual[suspect(residual, None, 0.25, 1)].tolist() == [12, 13, 14, 15]
    assert not suspect(residual, body & False, 0.25, 1).any()
