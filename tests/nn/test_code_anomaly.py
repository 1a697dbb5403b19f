"""Anomalies made of codes: which entries replace others, and where."""

from __future__ import annotations

import torch

from pipeline.nn.code_anomaly import ALIKE, entries_by_distance, replace_codes
from pipeline.nn.rng import Rng

LINE = torch.arange(20.0)[:, None] * torch.ones(1, 3)  # entry k lies at k on a line
ROWS = 64


def replaced(codes: torch.Tensor, reach: float, coherent: bool, region: torch.Tensor | None = None) -> torch.Tensor:
    everywhere = torch.ones_like(codes, dtype=torch.bool) if region is None else region
    share, same = torch.full((len(codes),), reach), torch.full((len(codes),), coherent)
    return replace_codes(codes, everywhere, entries_by_distance(LINE), share, same, Rng(range(len(codes))))


def test_entries_are_ordered_by_their_distance() -> None:
    order = entries_by_distance(LINE)
    assert torch.equal(order[:, 0], torch.arange(20))
    assert order[0].tolist() == list(range(20))
    assert set(order[10, 1:3].tolist()) == {9, 11}


def test_scattered_codes_are_never_the_code_itself_and_within_reach() -> None:
    codes = torch.full((ROWS, 8, 8), 10)
    near, far = replaced(codes, 0.2, coherent=False), replaced(codes, 1.0, coherent=False)
    assert (near != 10).all() and (far != 10).all()
    assert (near - 10).abs().max() == 2  # ranks 1 to 3: at 1, 1 and 2
    assert far.unique().tolist() == [k for k in range(20) if k != 10]


def test_coherent_codes_resemble_one_code_of_another_image() -> None:
    codes = torch.arange(ROWS)[:, None, None].expand(-1, 8, 8) % 20
    given, source = replaced(codes, 1.0, coherent=True), codes.roll(1, 0)
    assert ((given - source).abs() < ALIKE).all()
    middle = (source > 4) & (source < 15)
    assert (given - source)[middle].abs().max() == ALIKE // 2


def test_codes_outside_the_region_stay() -> None:
    codes = torch.randint(20, (ROWS, 8, 8), generator=torch.Generator().manual_seed(0))
    region = torch.zeros(ROWS, 8, 8, dtype=torch.bool)
    region[:, 2:5] = True
    for coherent in (False, True):
        given = replaced(codes, 1.0, coherent, region)
        assert torch.equal(given[~region], codes[~region])
        assert (given != codes)[region].float().mean() > 0.8
