"""Speed of the training loop relative to a bare PyTorch loop, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pipeline.methods.base import Method, MethodConfig
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import train
from pipeline.training.order import Images
from pipeline.training.state import TrainState


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """Images per second of CPU time, of both loops, and the median of the paired ratios.

    CPU time of the process, not wall time, so that other work on the machine hardly matters; on a quiet machine with
    fixed threads both give the same ratio.
    """

    method: str
    image_size: int
    batch_size: int
    bare_images_per_second: float
    images_per_second: float
    ratio: float


class RandomImages:
    """Uniform images in memory, as cheap to read as a cached data set."""

    def __init__(self, count: int, image_size: int) -> None:
        self.images = torch.rand(count, 1, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.body = torch.ones(1, image_size, image_size, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "body": self.body, "id": str(i)}


def measure_training_ratio(
    config: MethodConfig, image_size: int = 64, batch_size: int = 32, rounds: int = 9, steps: int = 3
) -> TrainingSpeed:
    """Time our loop against `forward, mean squared error, backward, Adam` on the same network.

    The bare loop has no averaged weights, no corruption of the input, no row-wise randomness, no checks, and its batch
    is ready in memory in the same memory format; everything else that our loop does counts against it. The two
    alternate every few steps, so that a busy machine slows both equally.

    Args:
        config: a method whose `forward` maps an image to an image (ae, dae).
        image_size, batch_size: real sizes; on tiny ones the fixed costs of any loop stand out.
        rounds, steps: paired measurements, and steps in each.
    """
    data = RandomImages(4 * batch_size, image_size)
    ours, bare = (
        _our_steps(config.build(image_size), data, batch_size),
        _bare_steps(config.build(image_size), data, batch_size),
    )
    _seconds(lambda: next(ours), 2), _seconds(lambda: next(bare), 2)  # the first steps allocate and choose kernels
    pairs = [(_seconds(lambda: next(bare), steps), _seconds(lambda: next(ours), steps)) for _ in range(rounds)]
    images = steps * batch_size
    speeds = [images / median(times) for times in zip(*pairs, strict=True)]
    return TrainingSpeed(config.name, image_size, batch_size, *speeds, ratio=median(b / o for b, o in pairs))  # type: ignore[misc]  # two speeds


def _our_steps(method: Method, data: Images, batch_size: int) -> Iterator[object]:
    config = TrainingConfig(images=10**9, batch_size=batch_size)
    return train(TrainState(method, config), data, config.images)


def _bare_steps(method: Method, data: RandomImages, batch_size: int) -> Iterator[Tensor]:
    """Yield after each step of a minimal PyTorch training loop."""
    network: Callable[[Tensor], Tensor] = method.train()
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-3)
    x = data.images[:batch_size].contiguous(memory_format=method.layout)
    while True:
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x), x)
        loss.backward()
        optimiser.step()
        yield loss


def _seconds(step: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        step()
    return time.process_time() - began
