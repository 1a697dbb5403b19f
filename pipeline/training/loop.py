"""Training loop, the only one: it handles phases and knows nothing of model types."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import TrainingDiverged
from pipeline.methods.base import Phase
from pipeline.nn.rng import Rng, row_key
from pipeline.training.order import Images, collate, draw_indices
from pipeline.training.precision import choose_precision
from pipeline.training.state import TrainState
from pipeline.types import Batch


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimiser step: images seen after it, its phase, its named terms (and "gradient_norm"), its speed."""

    images_seen: int
    phase: str
    terms: dict[str, float]
    images_per_second: float


def train(state: TrainState, data: Images, until_images: int) -> Iterator[StepRecord]:
    """Train until `until_images` images have been seen, yielding after each optimiser step.

    Data order and randomness are functions of (seed, images seen), so that stopping and resuming changes nothing.

    Raises:
        TrainingDiverged: a term or the gradient is NaN or infinite; that step changed no parameter.
        EmptySelection: `data` is empty.
    """
    state.method.train()
    while state.images_seen < until_images:
        while state.next_stage():
            state.enter_stage()
        began = time.perf_counter()
        phase = state.phase
        with _denormals_flushed():
            terms = _step(state, data, phase)
        seconds = time.perf_counter() - began
        yield StepRecord(state.images_seen, phase.name, terms, state.config.batch_size / max(seconds, 1e-9))


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormals to 0, as they slow a CPU tenfold late in training; per step, since the flag is process-wide."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _step(state: TrainState, data: Images, phase: Phase) -> dict[str, float]:
    batch, rng = _next(state, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(row_key(state.config.seed, "layers", state.images_seen))  # for dropout and similar layers
        with autocast(state):
            losses = state.method.loss(batch, phase.name, rng)
    terms = require_finite(losses, state)
    terms["gradient_norm"] = _descend(state, phase, losses["total"])
    state.method.after_step(phase.name)
    state.progress.images_seen += state.config.batch_size
    state.progress.step += 1
    state.follow()
    return terms


def _next(state: TrainState, data: Images) -> tuple[Batch, Rng]:
    """Return this process's rows of the next batch, and their randomness."""
    config, accelerator, first = state.config, state.accelerator, state.images_seen
    rows = range(accelerator.process_index, config.batch_size, accelerator.num_processes)
    chosen = draw_indices(config.seed, first, config.batch_size, len(data))
    rng = Rng.training(config.seed, first, config.batch_size, accelerator.device)
    mine = rng if len(rows) == config.batch_size else rng.rows(rows)
    return on_device(state, collate(data, [chosen[row] for row in rows])), mine


def on_device(state: TrainState, batch: Batch) -> Batch:
    """Return the batch on the method's device, in its memory format."""
    return batch.to(state.accelerator.device, state.layout)


def autocast(state: TrainState) -> torch.autocast:
    """Return the precision of the configuration, as a context."""
    device = state.accelerator.device.type
    return torch.autocast(device, torch.bfloat16, enabled=choose_precision(state.config.precision, device) == "bf16")


def require_finite(losses: dict[str, Tensor], state: TrainState) -> dict[str, float]:
    """Return the terms as numbers.

    Raises:
        TrainingDiverged: a term is NaN or infinite; the message names the first one, "total" last.
    """
    terms = {name: float(value.detach()) for name, value in losses.items()}
    for name in sorted(terms, key=lambda name: name == "total"):
        if not math.isfinite(terms[name]):
            raise diverged(name, terms[name], state)
    return terms


def diverged(term: str, value: float, state: TrainState) -> TrainingDiverged:
    """Return the error with the term, its value and the images seen."""
    return TrainingDiverged(
        f"Training of {state.method.config.name} diverged: {term!r} is {value} after {state.images_seen} images; every "
        "term must be finite. Lower the learning rate, set training.clip_norm, or check the normaliser's output range."
    )


def _descend(state: TrainState, phase: Phase, total: Tensor) -> float:
    """Take one optimiser step with the gradient of `total` with respect to the phase's parameters; return its norm."""
    optimiser = state.optimisers[phase.name]
    parameters = optimiser.param_groups[0]["params"]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else _laid_out_as(parameter, gradient)
    _share(state, parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not torch.isfinite(norm):
        raise diverged("gradient_norm", float(norm), state)
    if state.config.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, state.config.clip_norm, norm)
    optimiser.param_groups[0]["lr"] = phase.lr * state.config.rate(state.images_seen, phase.after, phase.until)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(norm)


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the parameter's strides.

    A second derivative (a gradient penalty) may come in another memory layout, which `backward` would mend and
    `autograd.grad` does not. The fused optimiser walks through memory: it would move each weight by the gradient of
    another one.
    """
    same = gradient.stride() == parameter.stride()
    return gradient if same else torch.empty_like(parameter).copy_(gradient)


def _share(state: TrainState, parameters: list[Tensor]) -> None:
    """Average gradients and running statistics over the processes, so that all have the same weights."""
    if state.accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = state.accelerator.reduce(parameter.grad, "mean")
    for buffer in state.method.buffers():
        if buffer.is_floating_point():
            buffer.copy_(state.accelerator.reduce(buffer.clone(), "mean"))
