"""Methods that repair: after a training of seconds, they take painted lesions out and leave the rest almost alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.corruption import LesionConfig, ShapeConfig, Tinted, paint
from pipeline.methods import build_method, parse_method
from pipeline.methods.capabilities import Reconstructor
from pipeline.nn.rng import Rng
from pipeline.types import Batch

LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))
UNET = {"widths": (8, 8, 16, 16, 16, 8)}
REPAIRING: dict[str, dict[str, Any]] = {
    "gated_dae": UNET,
    "ladder_vae": UNET,
    "ladder_vq": {**UNET, "entries": 64},
    "ladder_vq, fsq": {**UNET, "quantiser": "fsq"},
    "cold_diffusion": {**UNET, "ask_times": (49, 99)},
    "conditioned_ddpm": {"denoiser": {"widths": (8, 16), "attention": (False, False)}, "draws": 1},
}


@pytest.mark.parametrize("name", REPAIRING)
def test_a_trained_one_takes_lesions_out_and_leaves_normal_images_almost_alone(name: str, batch: Batch) -> None:
    config = {"name": name.split(",")[0], "lesions": LESIONS.model_dump(), **REPAIRING[name]}
    method = build_method(parse_method(config), 32)
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2)
    assert isinstance(method, Reconstructor)
    for step in range(80):
        optimiser.zero_grad()
        method.loss(batch, "train", Rng.training(0, 16 * step, 16))["total"].backward()
        optimiser.step()
        method.after_step("train")
        if step % 10 == 9 and repairs(method, batch):
            return
    pytest.fail("80 steps were not enough")


def repairs(method: Reconstructor, batch: Batch) -> bool:
    """Whether lesions are changed by 0.4 of their height, and by 8 times as much as normal images."""
    painted = paint(batch.images, batch.body, LESIONS, Rng(range(900, 916)))
    of_normal, of_lesions = ((method.reconstruct(x, Rng(range(16))) - x).abs() for x in (batch.images, painted.images))
    mean_on_lesions = of_lesions[painted.mask].mean()
    enough = mean_on_lesions > 0.4 * (painted.images - batch.images).abs()[painted.mask].mean()
    return bool(enough and mean_on_lesions > 8 * of_normal[batch.body].mean())
