"""`code_surprise`: usage counted by hand, its fallback on the whole image, and the z-score on held-out normals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods import build_method
from pipeline.methods.code_surprise import CodeSurprise, CodeSurpriseConfig
from pipeline.methods.component import ComponentConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def build(small: dict[str, dict[str, Any]], name: str = "vq_vae", **values: object) -> CodeSurprise:
    tokeniser = ComponentConfig(method={"name": name, **small[name]})
    method = build_method(CodeSurpriseConfig(**{"parts": 2, "strength": 4.0, **values}, tokeniser=tokeniser), 32)
    assert isinstance(method, CodeSurprise)
    return method


def says(method: CodeSurprise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tokeniser read its 4 x 4 codes off the image: the value of every eighth pixel."""
    monkeypatch.setattr(method, "codes", lambda x: [x[:, 0, ::8, ::8].long()])


def image(*rows: list[int]) -> Tensor:
    codes = torch.tensor(rows).float()
    return codes.repeat_interleave(8, 0).repeat_interleave(8, 1)[None, None]


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(str(row) for row in range(len(x))))


def test_surprise_by_hand(small: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of 16 codes, K = 16: the upper left part has code 1 in 7 of 8 places and 2 in one, the rest code 0."""
    method = build(small)
    says(method, monkeypatch)
    first = image([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0])
    second = image([1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0])
    method.finish([batch_of(first), batch_of(second)])
    (surprise,) = method.surprise(image([1, 2, 1, 0], [3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]))
    usage = {0: 25 / 48, 1: 8 / 48, 2: 2 / 48, 3: 1 / 48}
    assert surprise[0, 0, 0].item() == pytest.approx(-math.log((7 + 4 * usage[1]) / 12))
    assert surprise[0, 0, 1].item() == pytest.approx(-math.log((1 + 4 * usage[2]) / 12))
    assert surprise[0, 1, 0].item() == pytest.approx(-math.log(4 * usage[3] / 12))
    assert surprise[0, 0, 2].item() == pytest.approx(-math.log(4 * usage[1] / 12))  # unusual at this place
    assert surprise[0, 3, 3].item() == pytest.approx(-math.log((8 + 4 * usage[0]) / 12))


def test_probabilities_of_all_codes_sum_to_one_in_every_part(
    small: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, batch: Batch
) -> None:
    method = build(small)
    method.finish([batch])
    monkeypatch.setattr(method, "codes", lambda x: [torch.arange(16)[:, None, None].expand(16, 8, 8)])
    (surprise,) = method.surprise(batch.images)
    assert_close((-surprise).exp().sum(dim=0), torch.ones(8, 8))


@pytest.mark.parametrize("name", ["vq_vae", "vqgan", "ladder_vq", "multiscale_vq"])
def test_on_held_out_normals_each_level_has_mean_0_and_standard_deviation_1(
    name: str, batch: Batch, small: dict[str, dict[str, Any]]
) -> None:
    method = build(small, name)
    assert method.levels == {"ladder_vq": 5, "multiscale_vq": 4}.get(name, 1)
    counted, held_out = replace(batch, images=batch.images[:8]), batch
    method.finish([counted])
    method.standardise([held_out])
    maps = torch.stack(list(method._enlarged(batch.images)))
    z = (maps - method.normal_mean.reshape(-1, 1, 1, 1, 1)) / method.normal_std.reshape(-1, 1, 1, 1, 1)
    inside = z[:, batch.body]
    varied = maps[:, batch.body].std(dim=1) > 1e-3
    assert_close(inside.mean(dim=1), torch.zeros(method.levels), atol=1e-3, rtol=0)
    assert_close(inside.std(dim=1)[varied], torch.ones(int(varied.sum())), atol=1e-2, rtol=0)
    assert_close(method.anomaly_map(batch.images, Rng(range(16))), z.mean(dim=0))


def test_a_method_without_codes_on_a_grid_is_refused(small: dict[str, dict[str, Any]]) -> None:
    for name in ("vae", "vq_vae2"):
        with pytest.raises(ConfigError, match=name):
            build(small, name)
