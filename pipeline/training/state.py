"""State from which a training can be resumed: weights, averages, optimisers, counters."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.artefact import method_spec
from pipeline.methods.base import Method, Phase
from pipeline.training.config import TrainingConfig
from pipeline.training.order import active, find_phase_borders, phase_cycle

if TYPE_CHECKING:
    from accelerate import Accelerator


@lru_cache(maxsize=2)
def get_accelerator(cpu: bool) -> Accelerator:
    """Return this process's Accelerator (device, rank, reductions); only one may be created.

    It does not handle mixed precision, since its setting is fixed for the life of the process; the loop uses autocast.

    Raises:
        ConfigError: an earlier training of this process uses the other device.
    """
    from accelerate import Accelerator
    from accelerate.utils import parse_flag_from_env

    try:
        created = Accelerator(cpu=cpu)
    except ValueError:
        raise _settled(cpu) from None
    chosen = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    if not chosen and created.device.type == "cpu" and torch.cuda.is_available():
        raise _settled(cpu)
    return created


def _settled(cpu: bool) -> ConfigError:
    return ConfigError(
        f"training.device: {'cpu' if cpu else 'auto'} was requested, but an earlier training of this process "
        "uses the other device, which cannot be changed. Train in a new process."
    )


@dataclass
class Progress:
    """Counters of a training, saved as JSON."""

    images_seen: int = 0
    step: int = 0
    stage: int = 0
    process_seconds: float = 0.0
    stage_seconds: list[float] = field(default_factory=list)
    resumed: int = 0
    stopped: str = ""
    best: float | None = None
    best_images_seen: int = 0
    stale: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class TrainState:
    """A method in training.

    Args:
        method: trained in place.
        config: the training configuration.

    Raises:
        ConfigError: the batch cannot be shared evenly among the processes, or the method has no phases.
    """

    def __init__(self, method: Method, config: TrainingConfig) -> None:
        if not method.phases:
            raise ConfigError(f"{method.config.name} has no training phase: `fit` finishes it without this loop.")
        self.config = config
        self.accelerator = get_accelerator(config.device == "cpu")
        if config.batch_size % self.accelerator.num_processes:
            raise ConfigError(
                f"batch_size {config.batch_size} must be a multiple of the number of processes, "
                f"{self.accelerator.num_processes}."
            )
        self.method = method.to(self.accelerator.device)
        self.layout = method.layout
        self.ema = copy.deepcopy(self.method).eval().requires_grad_(False)
        self.best_weights: dict[str, Tensor] | None = None
        self.progress = Progress()
        self._borders = find_phase_borders(method.phases)
        self._cycles = [phase_cycle(active(method.phases, border)) for border in self._borders]
        self.optimisers = {phase.name: _optimiser(method, phase) for phase in method.phases}
        self._pairs = _float_pairs(self.ema, self.method)

    @property
    def images_seen(self) -> int:
        """Images trained on so far, counting repetitions."""
        return self.progress.images_seen

    @property
    def phase(self) -> Phase:
        """The phase of the next step."""
        cycle = self._cycles[self.progress.stage]
        return cycle[self.progress.step % len(cycle)]

    @property
    def first_phase(self) -> Phase:
        """The first of the active phases."""
        return self._cycles[self.progress.stage][0]

    @property
    def several_stages(self) -> bool:
        """Whether phases follow each other in stages."""
        return len(self._borders) > 1

    @property
    def last_stage(self) -> bool:
        """Whether this is the last stage."""
        return self.progress.stage == len(self._borders) - 1

    def next_stage(self) -> bool:
        """Return whether the boundary to the next stage is reached, in images or in CPU seconds."""
        if self.last_stage:
            return False
        spent, allowed = self.progress.process_seconds, self.config.max_seconds
        done = max(self.images_seen / self.config.images, spent / allowed if allowed else 0.0)
        return done >= self._borders[self.progress.stage + 1]

    @torch.no_grad()
    def enter_stage(self) -> None:
        """Enter the next stage: the best EMA weights replace the live weights, and the search for the best restarts."""
        best = self.ema.own_state() if self.best_weights is None else self.best_weights
        for module in (self.method, self.ema):
            for name, value in module.own_state().items():
                value.copy_(best[name])
        self.best_weights = None
        self.progress.best, self.progress.best_images_seen, self.progress.stale = None, 0, 0
        self.progress.stage += 1
        self.progress.step = 0

    @torch.no_grad()
    def follow(self) -> None:
        """Update the EMA weights: ema <- d ema + (1 - d) weights, with a smaller d at the start; buffers too."""
        n = self.progress.step
        decay = min(self.config.ema_decay, (1 + n) / (10 + n))
        ema, now, ema_counters, counters = self._pairs
        torch._foreach_lerp_(ema, now, 1 - decay)
        for target, source in zip(ema_counters, counters, strict=True):
            target.copy_(source)

    def keep_best(self, value: float) -> bool:
        """Record a validation total; keep the EMA weights if it is the lowest so far."""
        improved = self.progress.best is None or value < self.progress.best
        self.progress.stale = 0 if improved else self.progress.stale + 1
        if improved:
            self.progress.best, self.progress.best_images_seen = value, self.images_seen
            self.best_weights = {name: value.detach().clone() for name, value in self.ema.own_state().items()}
        return improved

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, without copying."""
        parts = {"method": self.method.own_state(), "ema": self.ema.own_state(), "best": self.best_weights or {}}
        for name, optimiser in self.optimisers.items():
            parts[f"adam.{name}"] = _moments(optimiser)
        return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Return the values that must match to resume a run: method and training without budgets."""
        budgets = {"images", "max_seconds", "patience", "keep_checkpoints", "device"}
        if self.config.schedule != "constant" or self.several_stages:
            budgets.remove("images")
        return {"method": method_spec(self.method), "training": self.config.model_dump(mode="json", exclude=budgets)}


def _optimiser(method: Method, phase: Phase) -> torch.optim.AdamW:
    """Return Adam with its moments allocated from the start, so that saving and loading need no first step."""
    parameters = method.parameters_of(phase)
    optimiser = torch.optim.AdamW(
        parameters, lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay, fused=True
    )
    for p in parameters:
        step = torch.zeros((), dtype=torch.float32, device=p.device)
        optimiser.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    return optimiser


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {f"{i}.{key}": value for i, p in enumerate(parameters) for key, value in optimiser.state[p].items()}


def _float_pairs(ema: Method, now: Method) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Return the tensors to average and the counters to copy, each as (ema, method)."""
    pairs = list(zip(ema.own_state().values(), now.own_state().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    others = [pair for pair in pairs if not pair[0].is_floating_point()]
    return [a for a, _ in floats], [b for _, b in floats], [a for a, _ in others], [b for _, b in others]
