"""What the laws over the registry run on: every method, made small, and a few images with structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.methods import METHODS
from pipeline.methods.base import Method, MethodConfig
from pipeline.types import Batch

SIZE = 32
# A method that is not named here is tested with its defaults; give it a small configuration if that is slow.
SMALL: dict[str, dict[str, Any]] = {
    "ae": {"widths": (8, 16), "hidden": 32, "latent": 8},
    "ae_u": {"widths": (8, 16), "hidden": 32, "latent": 8},
    "vae": {"widths": (8, 16), "latent": 8},
    "conditional_vae": {"widths": (8, 16), "latent": 8},
    "vampprior": {"widths": (8, 16), "latent": 8, "pseudo_inputs": 4},
    "dae": {"widths": (8, 8, 8, 16, 16, 8)},
    "synthetic_lesion": {
        "widths": (8, 8, 8, 16, 16, 8),
        "lesions": {"healthy": 0, "shape": {"radius": (0.12, 0.2)}, "textures": [{"kind": "tinted", "brighter": 1}]},
        "intensity": {},
        "lr": 3e-3,
    },
    "feature_ae": {"backbone": {"kind": "random", "depths": (1, 2)}, "widths": (8, 8), "lr": 5e-3},
    "f_anogan": {
        "widths": (8, 16),
        "latent": 8,
        "critic_steps": 1,
        "gan_share": 0.5,
        "lr": 1e-3,
        "encoder_lr": 5e-3,
    },
    "alpha_gan": {"widths": (8, 16), "latent": 8, "code_hidden": 16, "lr": 2e-3},
    "knn_features": {"backbone": {"kind": "random", "depths": (1, 2)}, "entries": 64, "projection": 8},
    "vq_vae": {"widths": (8, 16), "entries": 16, "code_width": 4},
    "vqgan": {
        "widths": (8, 16),
        "entries": 16,
        "code_width": 4,
        "perceptual": {"backbone": {"kind": "random", "depths": (1, 2)}},
        "discriminator_widths": 8,
        "discriminator_layers": 1,
    },
    "vq_vae2": {"widths": (8, 16), "entries": 16, "code_width": 4, "samples": 2, "prior": {"width": 8, "heads": 2}},
    "diff_ae": {
        "widths": (8, 16),
        "latent": 8,
        "denoiser": {"widths": (8, 16), "attention": (False, False)},
        "steps": 2,
        "lr": 2e-3,
    },
    "latent_diffusion": {
        "codec": {"method": {"name": "vq_vae", "widths": (8, 16), "entries": 16, "code_width": 4}},
        "denoiser": {"patch": 1, "widths": (16, 16), "attention": (False, False)},
        "start_times": (100, 200),
        "steps": 2,
        "lr": 3e-3,
    },
    "ddpm": {
        "denoiser": {"widths": (8, 16), "attention": (False, True)},
        "steps": 2,
        "start_times": (100, 200),
        "lr": 1e-3,
        "noise": "coarse",
    },
}


@pytest.fixture(params=list(METHODS))
def config(request: pytest.FixtureRequest) -> MethodConfig:
    """Each registered method, small."""
    return METHODS[request.param](**SMALL.get(request.param, {}))


@pytest.fixture
def method(config: MethodConfig, fitted: Callable[[Method], Method]) -> Method:
    """Each registered method, built for 32 px; one that only remembers has seen a few images."""
    return fitted(config.build(SIZE))


@pytest.fixture
def fitted() -> Callable[[Method], Method]:
    """Fit a method that has nothing to train, and leave the others as they are."""

    def fit(method: Method) -> Method:
        if not method.phases:
            images = make_batch(3, method.image_size, method.channels, method.spatial_dims)
            method.finish([replace(images, images=0.8 * images.images)])
        return method

    return fit


@pytest.fixture
def batch() -> Batch:
    """Four smooth images of different brightness, each with a body of its own."""
    return make_batch(4, SIZE)


def make_batch(count: int, size: int, channels: int = 1, spatial_dims: int = 2) -> Batch:
    """Return discs on a dark ground, deterministic."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * spatial_dims, indexing="ij")
    radius = torch.stack(axes).square().sum(dim=0).sqrt()
    body = torch.stack([(radius < 0.5 + 0.1 * i)[None] for i in range(count)])
    inside = torch.stack(
        [(0.2 * i - 0.3 + 0.3 * torch.cos(4 * radius + i)).expand(channels, *radius.shape) for i in range(count)]
    )
    about = tuple({"modality": "MR", "sex": "FMO"[i % 3], "relative_position": i / count} for i in range(1, count))
    return Batch(torch.where(body, inside, -1.0), body, tuple(f"slice-{i}" for i in range(count)), (*about, {}))
