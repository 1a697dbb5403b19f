"""`Method.passes`: the forward passes per image that a method states are those that its network makes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from pipeline.methods import METHODS, build_method
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Reconstructor
from pipeline.nn.rng import Rng
from pipeline.types import Batch

DENOISER = {"widths": (8, 16), "attention": (False, False)}
DIFFUSION = {"denoiser": DENOISER, "start_times": (100, 200), "steps": 3}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "ddpm": (DIFFUSION, 6),
    "ddpm, second pass": ({**DIFFUSION, "second_pass": {"steps": 4}}, 10),
    "ddpm, guided": ({**DIFFUSION, "conditions": {}, "guidance": 1.0}, 12),
    "rectified_flow": ({"denoiser": DENOISER, "steps": 3}, 6),
    "rectified_flow, heun and guided": (
        {"denoiser": DENOISER, "steps": 3, "solver": "heun", "conditions": {}, "guidance": 1.0},
        20,
    ),
    "diff_ae": ({**DIFFUSION, "stochastic": "drawn"}, 6),
    "diff_ae, inverted": ({**DIFFUSION, "stochastic": "inverted"}, 12),
    "cold_diffusion": ({"ask_times": (9, 49, 99)}, 3),
    "conditioned_ddpm": ({**DIFFUSION, "draws": 2}, 12),
    "ladder_vae": ({"draws": 3}, 3),
    "ladder_vae, means": ({"draws": 0}, 1),
    "ladder_vq": ({}, 1),
    "gated_dae": ({}, 1),
    "regression_unet": ({}, 1),
    "conditional_ddpm, tiles": ({"asked": {"steps": [{"kind": "tiles"}]}, "steps": 3, "draws": 2}, 12),
    "conditional_flow": ({"steps": 3, "draws": 2, "solver": "heun"}, 10),
    "var": ({"samples": 3}, 12),
    "var, raster": ({"samples": 1, "transformer": {"width": 8, "layers": 1, "heads": 2, "order": "raster"}}, 85),
}


@pytest.mark.parametrize("case", CASES)
def test_a_method_states_the_passes_that_its_network_makes(
    case: str, batch: Batch, small: dict[str, dict[str, Any]]
) -> None:
    (values, passes), name = CASES[case], case.split(",")[0]
    method: Method = build_method(METHODS[name](**small[name] | values), 32)
    rows: list[int] = []
    last_layer(method).register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    assert isinstance(method, Reconstructor)
    method.reconstruct(batch.images, Rng(range(16)))
    assert method.passes == passes == sum(rows) / len(batch.images)


def last_layer(method: Method) -> nn.Module:
    if method.config.name == "var":
        return method.get_submodule("transformer.last")
    network: Any = method.network
    return network.network.final_conv if hasattr(network.network, "final_conv") else network


def test_restoration_counts_three_passes_for_every_step(small: dict[str, dict[str, Any]]) -> None:
    for name in ("vae", "vampprior", "conditional_vae"):
        plain, restored = (METHODS[name](**small[name], restoration=r).build(32) for r in (None, {"steps": 7}))
        assert (plain.passes, restored.passes) == (1, 22)


def test_a_head_adds_its_pass_to_those_of_the_reconstructor(small: dict[str, dict[str, Any]]) -> None:
    reconstructor = {"method": {"name": "cold_diffusion", **small["cold_diffusion"]}}
    values = small["learned_residual"] | {"reconstructor": reconstructor}
    assert build_method(METHODS["learned_residual"](**values), 32).passes == 3
    assert build_method(METHODS["learned_residual"](**values, sees="image"), 32).passes == 1
