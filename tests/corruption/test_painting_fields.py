"""Targets of heads that learn from painted images, and other lesions for validate normals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from pipeline.corruption import LesionConfig, PaintingFields, Tinted
from pipeline.nn.rng import Rng
from pipeline.types import Batch

ROWS = 16
BATCH = Batch(torch.zeros(ROWS, 1, 32, 32), torch.ones(ROWS, 1, 32, 32, dtype=torch.bool), tuple(map(str, range(ROWS))))


def _tint(contrast: float, brighter: float) -> LesionConfig:
    tint = Tinted(contrast=(contrast, contrast), brighter=brighter, rough=(0, 0), wipe=(0, 0))
    return LesionConfig(healthy=0, textures=(tint,), visible=0)


@pytest.mark.parametrize("soft", [False, True])
def test_a_soft_head_learns_the_coverage_where_it_is_visible(soft: bool) -> None:
    lesson = PaintingFields(lesions=_tint(0.5, 1), soft=soft).lesson(BATCH, Rng(range(ROWS)))
    painted = lesson.painted
    assert lesson.target.dtype == torch.float32
    if not soft:
        assert torch.equal(lesson.target, painted.mask.float())
        return
    between = (painted.coverage > 0.1) & (painted.coverage < 0.5)
    assert between.any()
    assert_close(lesson.target[between], painted.coverage[between])
    assert torch.equal(lesson.target > 0, painted.coverage > 0)


def test_validate_normals_may_have_other_lesions() -> None:
    fields = PaintingFields(lesions=_tint(0.5, 1), validated_on=_tint(0.5, 0))
    training = fields.lesson(BATCH, Rng(range(ROWS))).painted.images
    validation = fields.lesson(replace(BATCH, held_out=True), Rng(range(ROWS))).painted.images
    assert training.max() > 0.4 and training.min() == 0
    assert validation.min() < -0.4 and validation.max() == 0
