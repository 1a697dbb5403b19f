"""Drawing of codes: the distribution by hand, and truncation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.nn.draw_codes import draw_code, require_drawing

P = torch.tensor([0.1, 0.4, 0.2, 0.3])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({"temperature": 1e-3}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),  # .4 + .3 is not enough yet
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 4 / 7, 0, 3 / 7]),  # .7 of the .9 that top_k leaves
    ],
)
def test_quantiles_of_the_uniform_numbers_follow_the_distribution(options: Any, expected: list[float]) -> None:
    u = (torch.arange(6000) + 0.5) / 6000
    drawn = draw_code(P.log().expand(6000, 4), u, **options)
    assert_close(torch.bincount(drawn, minlength=4) / 6000, torch.tensor(expected).float(), atol=2e-3, rtol=0)


def test_it_draws_at_every_place_of_a_grid() -> None:
    logits = torch.full((2, 3, 5, 4), -50.0)
    codes = torch.arange(30).reshape(2, 3, 5) % 4
    logits.scatter_(-1, codes[..., None], 0.0)
    assert torch.equal(draw_code(logits, torch.rand(2, 3, 5)), codes)


@pytest.mark.parametrize(
    ("options", "name"),
    [((0.0, 0, 1.0), "temperature"), ((float("nan"), 0, 1.0), "temperature"), ((1.0, -1, 1.0), "top_k"),
     ((1.0, 0, 0.0), "top_p"), ((1.0, 0, 1.1), "top_p")],
)  # fmt: skip
def test_absurd_options_are_refused_by_name(options: tuple[float, int, float], name: str) -> None:
    require_drawing(0.7, 3, 0.9)
    with pytest.raises(ConfigError, match=name):
        require_drawing(*options)
