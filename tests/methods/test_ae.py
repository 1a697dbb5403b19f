"""`ae`: the published recipe, and a code that nothing goes around."""

from __future__ import annotations

import torch

from pipeline.methods.ae import AeConfig


def test_the_recipe_has_the_published_size() -> None:
    # MedIAnomaly: 2.35 M parameters at 64 px, nearly all in the two layers between 4x4x64 = 1024 and 1024.
    count = sum(p.numel() for p in AeConfig().build(64).parameters())
    assert round(count / 1e6, 2) == 2.35


def test_the_bottom_grid_stays_small_on_larger_images() -> None:
    for size, edge in ((64, 4), (96, 6), (128, 4), (256, 4)):
        assert AeConfig().build(size).expand.unflattened_size[1:] == (edge, edge)


def test_no_more_than_the_code_passes() -> None:
    method = AeConfig(widths=(4, 8), hidden=32, latent=3).build(16).double().eval()
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(method, x).reshape(256, 256)
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == 3
