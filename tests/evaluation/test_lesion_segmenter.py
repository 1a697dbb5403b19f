"""A segmenter of lesions: it learns what it is shown, alike twice, and Dice by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.lesion_segmenter import LesionSegmenter, dice, mean_of_patients


def discs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright disc."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randint(8, 24, (count, 2, 1, 1), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    masks = ((rows - centres[:, 0]).square() + (columns - centres[:, 1]).square() < 20)[:, None].float()
    return 0.1 * torch.randn(count, 1, 32, 32, generator=generator) + masks - 0.5, masks


def test_it_finds_what_it_learned_and_not_what_is_elsewhere() -> None:
    before = torch.get_rng_state()
    segmenter = LesionSegmenter(*discs(24, 1), steps=40)
    assert torch.equal(torch.get_rng_state(), before)
    images, masks = discs(8, 2)
    marked = segmenter.find(images)
    assert dice(marked, masks).mean() > 0.7 > 0.3 > dice(marked, masks.roll(1, dims=0)).mean()
    assert torch.equal(LesionSegmenter(*discs(24, 1), steps=40).find(images), marked)


def test_dice_by_hand() -> None:
    masks = torch.zeros(3, 1, 2, 2)
    masks[0, 0, 0] = masks[1, 0, 0, 0] = 1
    marked = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    marked[0, 0, 0, 0] = True
    assert dice(marked, masks).tolist() == pytest.approx([2 / 3, 0, 1])


def test_the_mean_counts_images_and_draws_patients() -> None:
    values = np.array([0.0, 0.0, 0.0, 1.0])
    estimate = mean_of_patients(values, ["a", "a", "a", "b"])
    assert estimate.value == 0.25 and estimate.low == 0.0 and estimate.high == 1.0
    with pytest.raises(EmptySelection):
        mean_of_patients(values, ["a"] * 4)


def test_what_cannot_teach_is_refused() -> None:
    images, masks = discs(2, 1)
    for wrong in ((images, 0 * masks), (images[..., :24, :24], masks[..., :24, :24])):
        with pytest.raises(ConfigError, match="cannot learn"):
            LesionSegmenter(*wrong)
