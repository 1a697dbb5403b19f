"""`gated_dae`: the reconstruction is x + g d, and each term of the loss is what its name says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted, paint
from pipeline.errors import ConfigError
from pipeline.methods.gated_dae import GatedDae, GatedDaeConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


class Says(nn.Module):
    """Gives one logit and one correction everywhere."""

    def __init__(self, logit: float, d: float) -> None:
        super().__init__()
        self.answer = torch.tensor([logit, d])

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.reshape(1, 2, 1, 1).expand(len(x), 2, *x.shape[2:])


def saying(logit: float, d: float, **values: object) -> GatedDae:
    method = GatedDaeConfig(widths=WIDTHS, lesions=LESIONS, **values).build(32)
    method.network = Says(logit, d)
    return method


@pytest.mark.parametrize(("logit", "share"), [(-200.0, 0.0), (0.0, 0.5), (math.log(3), 0.75), (200.0, 1.0)])
def test_the_correction_passes_as_far_as_the_gate_is_open(batch: Batch, logit: float, share: float) -> None:
    x_hat = saying(logit, 0.4).reconstruct(batch.images, Rng(range(16)))
    assert_close(x_hat, batch.images + 0.4 * share)


def test_a_network_that_says_nothing_pays_by_closed_forms(batch: Batch) -> None:
    """Gate 1/2 everywhere: cross-entropy ln 2, soft Dice (|g| + 1) / (n / 2 + |g| + 1); no correction: the change."""
    painted = paint(batch.images, batch.body, LESIONS, Rng(range(16)))
    inside, lesion = (mask.flatten(1).sum(dim=1).float() for mask in (batch.body, painted.mask))
    terms = saying(0.0, 0.0, gate=2.0).loss(batch, "train", Rng(range(16)))
    assert_close(terms["absolute"], ((painted.images - batch.images).abs().flatten(1).sum(dim=1) / inside).mean())
    assert_close(terms["cross_entropy"], torch.tensor(math.log(2)))
    assert_close(terms["dice"], (1 - (lesion + 1) / (inside / 2 + lesion + 1)).mean())
    assert_close(terms["total"], terms["absolute"] + 2 * (terms["cross_entropy"] + terms["dice"]))


def test_the_gate_learns_from_the_absolute_error_too(batch: Batch) -> None:
    method = GatedDaeConfig(widths=WIDTHS, lesions=LESIONS).build(32)
    method.loss(batch, "train", Rng(range(16)))["absolute"].backward()
    last = [p for p in method.network.parameters() if p.grad is not None][-1]
    assert last.shape[0] == 2 and (last.grad != 0).all()


def test_a_size_that_the_patches_cannot_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        GatedDaeConfig(widths=WIDTHS, patch=2).build(80)
