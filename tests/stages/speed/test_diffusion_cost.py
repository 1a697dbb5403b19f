"""The cost of scoring by diffusion: passes counted exactly, ratios measured, and what each way changes."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.methods.ddpm import DdpmConfig, DiffusionModel
from pipeline.stages.speed.diffusion_cost import DiffusionCost, measure_diffusion_cost

TINY = {"denoiser": {"widths": (8,), "attention": (False,)}, "start_times": (60, 120), "steps": 3}


def model(**settings: object) -> DiffusionModel:
    method = DdpmConfig(**{**TINY, **settings}).build(16)
    torch.nn.init.normal_(method.network.network.out[2].conv.weight, std=0.05)
    return method.eval()


@pytest.fixture(scope="module")
def rows() -> dict[str, DiffusionCost]:
    x = torch.linspace(-1, 1, 3 * 256).reshape(3, 1, 16, 16)
    return {row.way: row for row in measure_diffusion_cost(model(), x, rounds=1, still=0.05)}


def test_passes_are_start_times_times_steps(rows: dict[str, DiffusionCost]) -> None:
    expected = {"one forward pass": 1, "50 steps, start by start": 100, "3 steps, start by start": 6, "in one batch": 6}
    assert {name: rows[name].passes for name in expected} == expected
    assert rows["bf16"].passes == 6
    assert 4 <= rows["early exit"].passes < 100


def test_options_that_only_rearrange_the_work_change_no_answer(rows: dict[str, DiffusionCost]) -> None:
    assert rows["in one batch"].difference < 1e-5
    assert 0 < rows["bf16"].difference < 0.02
    assert rows["3 steps, start by start"].difference > 1e-4 and rows["early exit"].difference < 0.1


def test_costs_are_ratios_of_the_same_round(rows: dict[str, DiffusionCost]) -> None:
    assert all(row.images_per_second > 0 and row.speedup > 0 for row in rows.values())
    plain, few = rows["50 steps, start by start"], rows["3 steps, start by start"]
    assert plain.forward_passes > 5 * few.forward_passes
    assert few.speedup == pytest.approx(plain.forward_passes / few.forward_passes)  # one round: no median between
    assert rows[few.against] is plain


@pytest.mark.parametrize("wrong", [{"second_pass": {}}, {"conditions": {}}, {"start_times": (30, 120)}])
def test_variants_that_cannot_be_compared_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="plain ddpm"):
        measure_diffusion_cost(model(**wrong), torch.zeros(1, 1, 16, 16))
