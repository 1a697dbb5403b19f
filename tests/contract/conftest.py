"""Fixtures of the laws over the registry: every method, made small, and a few images with structure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.methods import METHODS, build_method
from pipeline.methods.base import Method, MethodConfig
from pipeline.types import Batch

SIZE = 32


@pytest.fixture(params=list(METHODS))
def config(request: pytest.FixtureRequest, small: dict[str, dict[str, Any]]) -> MethodConfig:
    """Each registered method, small."""
    return METHODS[request.param](**small.get(request.param, {}))


@pytest.fixture(scope="session")
def built() -> dict[str, Method]:
    """The methods that were built for 32 px, by name; nothing but `method` reads it, which copies."""
    return {}


@pytest.fixture
def method(config: MethodConfig, fitted: Callable[[Method], Method], built: dict[str, Method]) -> Method:
    """Each registered method, built for 32 px; one that only remembers has seen a few images."""
    if config.name not in built:
        built[config.name] = fitted(build_method(config, SIZE))
    return copy.deepcopy(built[config.name])


@pytest.fixture
def all_small(small: dict[str, dict[str, Any]]) -> list[Method]:
    """Every registered method, small, as it is built."""
    return [build_method(METHODS[name](**small.get(name, {})), SIZE) for name in METHODS]


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


class Items:
    """A batch as a data set."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.ids)

    def __getitem__(self, i: int) -> dict[str, object]:
        b = self.batch
        return {"image": b.images[i], "body": b.body[i], "id": b.ids[i], "about": b.about[i]}


@pytest.fixture
def as_data() -> Callable[[Batch], Items]:
    """Make a data set of a batch."""
    return Items


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
