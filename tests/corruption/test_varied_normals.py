"""Normals several times over: the first pass is untouched, and an image's jitter depends on its id, seed and pass."""

from __future__ import annotations

import torch

from pipeline.corruption import IntensityConfig
from pipeline.corruption.varied_normals import varied
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def test_an_image_varies_by_its_id_whatever_its_neighbours_are() -> None:
    x = Rng([1, 2, 3]).uniform(1, 16, 16, low=-0.8, high=0.8)
    body, ids = torch.ones_like(x, dtype=torch.bool), ("a", "b", "c")
    whole = list(varied([Batch(x, body, ids)], IntensityConfig(noise=0.3), 3, seed=5))
    alone = list(varied([Batch(x[1:2], body[1:2], ("b",))], IntensityConfig(noise=0.3), 3, seed=5))
    assert len(whole) == 3 and torch.equal(whole[0].images, x)
    assert all(torch.equal(many.images[1:2], one.images) for many, one in zip(whole, alone, strict=True))
    other = list(varied([Batch(x, body, ids)], IntensityConfig(noise=0.3), 2, seed=6))
    assert not torch.equal(whole[1].images, whole[2].images) and not torch.equal(whole[1].images, other[1].images)
