"""Cost of scoring by diffusion relative to one forward pass, and the gain of each way to reduce it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.methods.ddpm import DiffusionModel
from pipeline.nn.rng import Rng

PLAIN_STEPS = 50  # steps per start time in the papers' plain procedure


@dataclass(frozen=True, slots=True)
class DiffusionCost:
    """One way to reconstruct, against another.

    Attributes:
        way, against: the procedure, and the row with which it is compared.
        passes: number of network passes per image.
        images_per_second: of CPU time (of wall time on an accelerator).
        forward_passes: cost in units of one forward pass of the same batch; median over rounds.
        speedup: over `against`; median over rounds; 1 for the forward pass itself, which comes first.
        difference: mean absolute difference to the reconstructions of `against`, which are in [-1, 1].
    """

    way: str
    against: str
    passes: float
    images_per_second: float
    forward_passes: float
    speedup: float
    difference: float


@dataclass(slots=True)
class _Way:
    name: str
    against: str
    models: list[DiffusionModel]
    bf16: bool = False

    def run(self, x: Tensor) -> Tensor:
        """Reconstruct by each of the models, and average."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return torch.stack([m.reconstruct(x, Rng(range(len(x)), x.device)) for m in self.models]).mean(dim=0)


def measure_diffusion_cost(
    method: DiffusionModel, x: Tensor, rounds: int = 3, still: float = 0.02, compiled: bool = False
) -> list[DiffusionCost]:
    """Time every way on the same images, alternating in each round, so that a busy machine affects all equally.

    The first row is one forward pass; then, each with one change: the papers' `PLAIN_STEPS` steps from one start time
    after another; few steps (the method's own number); all start times in one batch; bf16; early exit; and
    torch.compile if requested.

    Args:
        method: trained or not; without conditions and second pass.
        x: [B, C, *spatial].
        rounds: number of measured rounds, after a warm-up.
        still: threshold of the early exit, see `DdpmConfig`.
        compiled: measure torch.compile, which needs a compiler and a minute.

    Raises:
        ConfigError: the method has conditions or a second pass, or starts too early for `PLAIN_STEPS` steps.
    """
    config = method.config
    if config.conditions is not None or config.second_pass is not None or min(config.start_times) < PLAIN_STEPS:
        raise ConfigError(
            f"The cost is measured for a plain ddpm starting at time {PLAIN_STEPS} or later. Set conditions and "
            "second_pass to null, "
            f"and use start_times above {min(config.start_times)}."
        )
    ways = _ways(method, still, compiled)
    passes = _count(ways, x)
    runs = [_forward(method), *[way.run for way in ways]]
    times = torch.tensor([[_seconds(run, x) for run in runs] for _ in range(rounds)], dtype=torch.float64)
    seconds = dict(zip(["one forward pass", *passes], times.T, strict=True))
    results = {way.name: way.run(x) for way in ways}
    bare, speed = "one forward pass", float(len(x) / times[:, 0].median())
    first = DiffusionCost(bare, bare, 1.0, speed, 1.0, 1.0, 0.0)
    return [first, *[_row(way, passes, seconds, results) for way in ways]]


def _row(way: _Way, passes: dict[str, float], seconds: dict[str, Tensor], results: dict[str, Tensor]) -> DiffusionCost:
    own, x_hat = seconds[way.name], results[way.name]
    return DiffusionCost(
        way=way.name,
        against=way.against,
        passes=passes[way.name],
        images_per_second=float(len(x_hat) / own.median()),
        forward_passes=float((own / seconds["one forward pass"]).median()),
        speedup=float((seconds[way.against] / own).median()),
        difference=float((x_hat - results[way.against]).abs().mean()),
    )


def _ways(method: DiffusionModel, still: float, compiled: bool) -> list[_Way]:
    starts, steps = method.config.start_times, method.config.steps
    plain, few, batch = f"{PLAIN_STEPS} steps, start by start", f"{steps} steps, start by start", "in one batch"
    ways = [
        _Way(plain, plain, [_variant(method, start_times=(t,), steps=PLAIN_STEPS) for t in starts]),
        _Way(few, plain, [_variant(method, start_times=(t,)) for t in starts]),
        _Way(batch, few, [_variant(method)]),
        _Way("bf16", batch, [_variant(method)], bf16=True),
        _Way("early exit", plain, [_variant(method, start_times=(t,), steps=PLAIN_STEPS, still=still) for t in starts]),
    ]
    if compiled:
        model = _variant(method)
        model.network = cast(nn.Module, torch.compile(method.network))
        ways.append(_Way("torch.compile", batch, [model]))
    return ways


def _variant(method: DiffusionModel, **settings: Any) -> DiffusionModel:
    """Return the same network with another configuration."""
    config = method.config.model_copy(update=settings)
    model = DiffusionModel(config, method.image_size, method.channels, method.spatial_dims).to(
        next(method.parameters())
    )
    model.network = method.network
    return model.eval()


def _count(ways: list[_Way], x: Tensor) -> dict[str, float]:
    """Return the number of network passes per image for each way; the run is also the warm-up."""
    passes = {}
    for way in ways:
        seen: list[int] = []

        def note(module: nn.Module, inputs: tuple[Tensor, ...], seen: list[int] = seen) -> None:
            seen.append(len(inputs[0]))

        hooks = [model.network.register_forward_pre_hook(note) for model in way.models[:1]]  # the others share it
        way.run(x)
        for hook in hooks:
            hook.remove()
        passes[way.name] = sum(seen) / len(x)
    return passes


def _forward(method: DiffusionModel) -> Callable[[Tensor], object]:
    def run(x: Tensor) -> Tensor:
        with method.inference():
            return method.network(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))

    return run


def _seconds(run: Callable[[Tensor], object], x: Tensor) -> float:
    clock = time.process_time if x.device.type == "cpu" else time.perf_counter
    began = clock()
    run(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return clock() - began
