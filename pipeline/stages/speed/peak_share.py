"""Training as a share of the machine's peak: floating-point operations per second against those of a matrix product.

The peak is measured, not read from a data sheet: the fastest of large matrix products and of large convolutions, as
torch computes them on this machine, in the precision in which the network trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import Rng
from pipeline.stages.speed.training_ratio import RandomImages
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import autocast, train
from pipeline.training.order import collate
from pipeline.training.state import TrainState

PrecisionName = Literal["fp32", "bf16"]
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
EDGE = 2048  # of the square matrices
CONVOLUTION = (16, 128, 64)  # images, channels in and out, edge
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class PeakShare:
    """Training of one network against the peak.

    Attributes:
        method, precision: of the network, and the precision that was used.
        training: GFLOP per CPU second of whole training steps, painting and optimiser included; only the operations of
            convolutions and matrix products in the forward and backward pass are counted.
        passes: the same of the forward and backward pass alone.
        peak: GFLOP per CPU second of the fastest matrix product or convolution.
        share, passes_share: medians over rounds of `training` / `peak` and `passes` / `peak`.
    """

    method: str
    precision: PrecisionName
    training: float
    passes: float
    peak: float
    share: float
    passes_share: float


def measure_peak_share(
    config: MethodConfig, precision: PrecisionName, image_size: int = 128, batch_size: int = 16, rounds: int = 3
) -> PeakShare:
    """Time whole training steps, bare passes and the peak in turns, so that a busy machine slows all equally.

    Args:
        config: the network.
        precision: in which to train; the peak is measured in the same.
        image_size, batch_size: real sizes.
        rounds: one step, one pass and one of each large product per round, after a warm-up.
    """
    data = RandomImages(batch_size, image_size)
    state = TrainState(
        config.build(image_size), TrainingConfig(images=10**9, batch_size=batch_size, precision=precision)
    )
    steps, products = train(state, data, 10**9), _products(precision)

    def both_passes() -> None:
        _passes(state, data)

    flops = _count(both_passes)
    next(steps)  # the first step allocates and chooses kernels
    times = []
    for _ in range(rounds + 1):
        peak = max(work / _seconds(run) for run, work in products)
        times.append((peak, flops / _seconds(lambda: next(steps)), flops / _seconds(both_passes)))
    peaks, trained, passed = zip(*times[1:], strict=True)
    return PeakShare(
        config.name,
        precision,
        median(trained) / GIGA,
        median(passed) / GIGA,
        median(peaks) / GIGA,
        median(t / p for t, p in zip(trained, peaks, strict=True)),
        median(t / p for t, p in zip(passed, peaks, strict=True)),
    )


def _passes(state: TrainState, data: RandomImages) -> None:
    """Run one forward and backward pass of the phase that trains, painting included."""
    method: Method = state.method
    batch = collate(data, range(len(data))).to("cpu", state.layout)
    with autocast(state):
        total = method.loss(batch, state.phase.name, Rng.training(0, 0, len(data), torch.device("cpu")))["total"]
    torch.autograd.grad(total, method.parameters_of(state.phase), allow_unused=True)


def _count(work: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _products(precision: PrecisionName) -> list[tuple[Callable[[], Tensor], int]]:
    """Return a large matrix product and a large convolution, each with its number of operations."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, EDGE, EDGE).to(dtype)
    images, channels, edge = CONVOLUTION
    x = torch.randn(images, channels, edge, edge).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    convolution = 2 * 9 * images * channels**2 * edge**2
    return [(lambda: a @ b, 2 * EDGE**3), (lambda: functional.conv2d(x, kernel, padding=1), convolution)]


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
