"""Methods in three dimensions: those whose networks allow it train a step on a small volume."""

from __future__ import annotations

import pytest
import torch

from pipeline.methods import METHODS
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train

SMALL = {
    "ae": {"widths": (4, 8), "hidden": 16, "latent": 4},
    "vae": {"widths": (4, 8), "latent": 4},
    "dae": {"widths": (8, 8, 8, 8, 8, 8)},
    "conditional_vae": {"widths": (4, 8), "latent": 4},
    "vampprior": {"widths": (4, 8), "latent": 4, "pseudo_inputs": 2},
    "vq_vae": {"widths": (4, 8), "entries": 8, "code_width": 4},
    "vq_vae2": {"widths": (4, 8), "entries": 8, "code_width": 4, "samples": 1, "prior": {"width": 8, "heads": 2}},
    "vqgan": {"widths": (4, 8), "entries": 8, "code_width": 4, "perceptual_weight": 0.0, "discriminator_widths": 4},
    "latent_diffusion": {
        "codec": {"method": {"name": "vq_vae", "widths": (4, 8), "entries": 8, "code_width": 4}},
        "denoiser": {"patch": 1, "widths": (8, 8), "attention": (False, False)},
        "steps": 1,
    },
    "ddpm": {
        "denoiser": {"patch": 1, "widths": (8, 8), "attention": (False, False)},
        "steps": 1,
        "start_times": (100,),
        "noise": "coarse",
    },
}


class Volumes:
    """Two volumes of `size` voxels a side."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict[str, object]:
        image = torch.linspace(-1, 1, self.size**3).reshape(1, *[self.size] * 3) * (1 - 0.5 * i)
        return {"image": image, "body": torch.ones_like(image, dtype=torch.bool), "id": str(i)}


@pytest.mark.parametrize("name", SMALL)
def test_a_volume_is_learnt_from_and_reconstructed(name: str) -> None:
    volumes = Volumes(16 if name == "ddpm" else 32)
    method = METHODS[name](**SMALL[name]).build(volumes.size, spatial_dims=3)
    before = [p.clone() for p in method.parameters()]
    state = TrainState(method, TrainingConfig(batch_size=2, images=4))
    assert [record.images_seen for record in train(state, volumes, 4)] == [2, 4]
    assert any(not torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    x = torch.stack([volumes[i]["image"] for i in range(2)])
    x_hat = method.reconstruct(x, Rng([1, 2]))
    assert x_hat.shape == x.shape and torch.isfinite(x_hat).all()
