"""Findings: which regions of a map they are, and how they are pasted on other images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.corruption import PaintingFields
from pipeline.corruption.findings import HarvestConfig, PastingConfig, harvest, paste
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng
from pipeline.types import Batch

STILL = PastingConfig(share=1.0, rotate_degrees=0, scale=0, shift=0, gain=0, strength=(1.0, 1.0))


def _square(row: int, column: int, size: int = 32, edge: int = 6) -> Tensor:
    outline = torch.zeros(1, 1, size, size)
    outline[..., row : row + edge, column : column + edge] = 1
    return outline


def _rng(rows: int = 1) -> Rng:
    return Rng.training(0, 0, rows)


def test_a_finding_is_a_region_with_enough_seeds() -> None:
    surprise = torch.zeros(1, 40, 40)
    surprise[0, 4:10, 4:10], surprise[0, 5:7, 5:7] = 1, 3  # a region of 36 pixels with 4 seeds
    surprise[0, 20:26, 20:26] = 1  # a region without a seed
    surprise[0, 30:32, 4:6] = 3  # seeds alone, too small
    config = HarvestConfig(seed_area=3 / 1600, area=30 / 1600, outline=0)
    ((seeds, outline),) = harvest(surprise, (2.0, 0.5), config)
    assert seeds == pytest.approx(4 / 1600)
    assert outline.shape == (1, 40, 40) and float(outline.max()) <= 1
    inside = outline[0] >= 0.5
    assert inside[4:10, 4:10].all() and not inside[:2].any() and not inside[12:].any()


def test_an_outline_may_be_cut_higher_up() -> None:
    distance = (torch.arange(64.0) - 31.5).abs()
    surprise = torch.clamp(10 - torch.maximum(distance[:, None], distance), min=0)[None]  # a pyramid, 9.5 high
    areas = []
    for share in (0.0, 0.5):
        ((_, outline),) = harvest(surprise, (5.0, 0.4), HarvestConfig(outline=share))
        areas.append(int((outline >= 0.5).sum()))
    # 0.95 of its pixels are below 7.5 or so; half way up from 0.4 leaves 12 x 12, a pixel wider with rounded corners
    assert areas[0] > 2 * areas[1] and 140 < areas[1] <= 196


def test_regions_that_do_not_count_are_no_finding() -> None:
    surprise = torch.full((1, 32, 32), -torch.inf)
    assert list(harvest(surprise, (2.0, 0.5), HarvestConfig())) == []


def test_an_unmoved_finding_replaces_what_it_covers() -> None:
    clean, body = torch.full((1, 1, 32, 32), -0.5), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    outline = _square(10, 13)  # in the middle of the last axis, so that mirroring moves nothing
    finding = torch.cat([torch.full_like(clean, 0.25), outline], dim=1)
    images, coverage = paste(clean, body, finding, STILL, _rng())
    assert torch.allclose(coverage, outline, atol=1e-4)
    assert torch.allclose(images, torch.where(outline > 0.5, 0.25, -0.5), atol=1e-4)


def test_nothing_is_pasted_outside_the_body() -> None:
    clean, body = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    body[..., :12, :] = True
    images, coverage = paste(clean, body, torch.cat([clean + 1, _square(10, 13)], dim=1), STILL, _rng())
    assert not coverage[..., 12:, :].any() and coverage[..., 10:12, 13:19].all()
    assert torch.equal(images[..., 12:, :], clean[..., 12:, :])


def test_a_finding_turns_about_its_own_middle_and_keeps_its_size() -> None:
    rows = 40
    clean, body = torch.zeros(rows, 1, 64, 64), torch.ones(rows, 1, 64, 64, dtype=torch.bool)
    outline = _square(14, 29, 64, 6).expand(rows, 1, 64, 64)
    turned = PastingConfig(rotate_degrees=180, scale=0, shift=0)
    _, coverage = paste(clean, body, torch.cat([clean, outline], dim=1), turned, _rng(rows))
    places = torch.arange(64.0) + 0.5
    mass = coverage.sum(dim=(1, 2, 3))
    down, across = (coverage[:, 0] * places[:, None]).sum((1, 2)) / mass, (coverage[:, 0] * places).sum((1, 2)) / mass
    assert torch.allclose(mass, torch.full((rows,), 36.0), rtol=0.05)
    assert torch.allclose(down, torch.full((rows,), 17.0), atol=0.1)
    assert torch.allclose(across, torch.full((rows,), 32.0), atol=0.1)


def test_shifts_are_fractions_of_the_edge_and_scales_change_areas() -> None:
    rows = 200
    clean, body = torch.zeros(rows, 1, 64, 64), torch.ones(rows, 1, 64, 64, dtype=torch.bool)
    finding = torch.cat([clean, _square(26, 26, 64, 12).expand(rows, 1, 64, 64)], dim=1)
    _, moved = paste(clean, body, finding, PastingConfig(rotate_degrees=0, scale=0, shift=0.1), _rng(rows))
    places = torch.arange(64.0) + 0.5
    down = (moved[:, 0] * places[:, None]).sum((1, 2)) / moved.sum((1, 2, 3))
    assert 5.5 < float((down - 32).abs().max()) <= 6.5
    _, scaled = paste(clean, body, finding, PastingConfig(rotate_degrees=0, scale=0.5, shift=0), _rng(rows))
    sizes = scaled.sum((1, 2, 3)).sqrt() / 12
    assert 0.45 < float(sizes.min()) < 0.6 and 1.4 < float(sizes.max()) < 1.55


def test_a_lesson_pastes_another_rows_finding() -> None:
    size, rows = 32, 4
    images, body = torch.zeros(rows, 1, size, size), torch.ones(rows, 1, size, size, dtype=torch.bool)
    values = torch.tensor([0.2, 0.4, 0.6, 0.8]).reshape(-1, 1, 1, 1)
    findings = torch.cat([values.expand(rows, 1, size, size), _square(10, 13).expand(rows, 1, size, size)], dim=1)
    batch = Batch(images, body, tuple("abcd"), findings=findings)
    lesson = PaintingFields(pasting=STILL).lesson(batch, _rng(rows))
    seen = lesson.painted.images[:, 0, 13, 16]
    assert torch.allclose(seen, torch.tensor([0.8, 0.2, 0.4, 0.6]), atol=1e-4)
    assert lesson.painted.mask[:, 0, 10:16, 13:19].all() and int(lesson.painted.mask.sum()) == rows * 36
    assert torch.equal(lesson.clean, images)


def test_a_method_that_pastes_needs_findings() -> None:
    batch = Batch(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool), ("a",))
    with pytest.raises(ConfigError, match="unlabelled"):
        PaintingFields(pasting=PastingConfig()).lesson(batch, _rng())
