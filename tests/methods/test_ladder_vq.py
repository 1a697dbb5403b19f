"""`ladder_vq`: both quantisers on every level, and codebooks that learn."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted
from pipeline.methods.ladder_vq import LadderVq, LadderVqConfig
from pipeline.nn.quantise import CodebookConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


def build(**values: object) -> LadderVq:
    return LadderVqConfig(widths=WIDTHS, lesions=LESIONS, entries=16, **values).build(32)


@pytest.mark.parametrize("quantiser", ["vq", "fsq"])
def test_every_level_speaks_in_its_codes_only(quantiser: str, batch: Batch) -> None:
    method = build(quantiser=quantiser, values=(3, 3)).eval()
    levels = method.encode(batch.images)
    assert [level.indices.shape[-1] for level in levels] == [32, 16, 8, 4, 2]
    for level, width in zip(levels, method.config.code_widths, strict=True):
        vectors = level.codes.movedim(1, -1).reshape(-1, width).round(decimals=5)
        assert len(vectors.unique(dim=0)) == len(level.indices.unique()) <= (16 if quantiser == "vq" else 9)


def test_the_loss_is_repair_and_commitment_and_with_a_gradient_the_codebook(batch: Batch) -> None:
    rng = Rng(range(16))
    by_mean = build(beta=0.5).loss(batch, "train", rng)
    assert_close(by_mean["total"], by_mean["repair"] + 0.5 * by_mean["commitment"])
    by_gradient = build(beta=0.5, codebook=CodebookConfig()).loss(batch, "train", rng)
    assert_close(
        by_gradient["total"], by_gradient["repair"] + 0.5 * by_gradient["commitment"] + by_gradient["codebook"]
    )
    rounded = build(quantiser="fsq").loss(batch, "train", rng)
    assert rounded["total"] == rounded["repair"] and rounded["commitment"] == 0


def test_codebooks_move_after_a_step_and_only_in_training(batch: Batch) -> None:
    method = build()
    method.loss(batch, "train", Rng(range(16)))
    before = [quantiser.codebook.clone() for quantiser in method.quantisers]
    method.after_step("train")
    assert all(not torch.equal(q.codebook, old) for q, old in zip(method.quantisers, before, strict=True))
    before = [quantiser.codebook.clone() for quantiser in method.quantisers]
    method.reconstruct(batch.images, Rng(range(16)))
    method.after_step("train")
    assert all(torch.equal(q.codebook, old) for q, old in zip(method.quantisers, before, strict=True))
