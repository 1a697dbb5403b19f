"""Complete training run: loop, validation on held-out normals, early stopping, checkpoints, progress bar."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pipeline.errors import ConfigError, TrainingDiverged
from pipeline.methods.artefact import copy_tensors
from pipeline.methods.base import Method
from pipeline.nn.rng import Rng
from pipeline.progress import show_progress
from pipeline.training.checkpoint import list_checkpoints, resume, save_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import StepRecord, autocast, on_device, require_finite, train
from pipeline.training.order import Images, collate, ordered
from pipeline.training.state import TrainState, get_accelerator


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One validation: mean training terms since the last one, validation terms of the EMA weights, speed."""

    images_seen: int
    training: dict[str, float]
    validation: dict[str, float]
    images_per_second: float
    process_seconds: float
    best: bool


@dataclass(frozen=True, slots=True)
class FitResult:
    """A finished training: `method` holds the best EMA weights, in eval mode, on the CPU.

    `stopped` is images (budget used up), patience (no improvement) or seconds (CPU time used up); `best` is the lowest
    validation total, None without validation images. `stage_seconds` are the CPU seconds of each stage, if phases
    follow each other; their sum is `process_seconds`.
    """

    method: Method
    images_seen: int
    best: float | None
    best_images_seen: int
    stopped: str
    process_seconds: float
    history: list[TrainingRecord] = field(default_factory=list)
    stage_seconds: tuple[float, ...] = ()


def fit(
    method: Method,
    train_data: Images,
    validate_data: Images | None,
    config: TrainingConfig,
    folder: Path,
    on_record: Callable[[TrainingRecord], None] | None = None,
    progress: bool = False,
) -> FitResult:
    """Train `method`, resuming from the newest checkpoint in `folder`; a method without phases is only finished.

    After a kill at any time, calling it again with the same arguments gives bitwise the same weights (same machine,
    thread count and library versions; except with a `max_seconds` budget, which depends on the machine's speed).

    Args:
        method: trained in place; do not use it afterwards, use the result's.
        train_data, validate_data: normal images of different patients; None or empty turns early stopping off.
        config: training configuration.
        folder: folder of the checkpoints.
        on_record: called after each validation of this call.
        progress: report images seen and the time left, on a terminal by a bar.

    Raises:
        TrainingDiverged: NaN or infinity; the message names the term, the images seen and the last good checkpoint.
        ConfigError: `folder` holds a training with another configuration, or is in use by another process.
        EmptySelection: no training images.
    """
    if not method.phases:
        return _fitted(method, train_data, validate_data, config)
    state = TrainState(method, config)
    with _alone(state, folder):
        resume(state, folder)
        run = _Run(state, validate_data, folder, on_record or (lambda record: None))
        try:
            run.go(train_data, progress)
        except TrainingDiverged as error:
            saved = list_checkpoints(folder)
            last = f"The last good checkpoint is {saved[-1].name}" if saved else "No checkpoint was written before"
            raise TrainingDiverged(f"{error} {last}.") from None
    return _result(state, train_data, validate_data)


def _fitted(method: Method, data: Images, held_out: Images | None, config: TrainingConfig) -> FitResult:
    """Fit a method without phases in one pass over the images."""
    began = time.process_time()
    method = method.to(get_accelerator(config.device == "cpu").device).eval()
    complete(method, data, held_out, config.batch_size)
    seconds = time.process_time() - began
    return FitResult(method.to("cpu"), len(data), None, len(data), "images", seconds)


@contextlib.contextmanager
def _alone(state: TrainState, folder: Path) -> Iterator[None]:
    """Hold the folder's lock, since two trainings in one folder would overwrite each other's checkpoints."""
    if not state.accelerator.is_main_process:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(f"{folder} is in use by another training. Wait for it, or choose another folder.") from None


@dataclass
class _Run:
    state: TrainState
    validate_data: Images | None
    folder: Path
    on_record: Callable[[TrainingRecord], None]
    noted: float = 0.0  # process time up to which CPU seconds are recorded

    def go(self, data: Images, progress: bool) -> None:
        """Train until a budget or the patience is used up, with validations and checkpoints."""
        state, config = self.state, self.state.config
        self.noted = time.process_time()
        with _bar(state, progress) as advance:
            for record in _until_stopped(state, data):
                self.spend()
                _accumulate(state, record)
                advance(record)
                if _crossed(state, config.validate_every_images) or state.next_stage():
                    self.validate()
                elif config.checkpoint_every_images and _crossed(state, config.checkpoint_every_images):
                    self.save()
        if not state.progress.history or state.progress.history[-1]["images_seen"] < state.images_seen:
            self.validate()
        state.progress.stopped = _stop_reason(state)
        self.save()

    def validate(self) -> None:
        """Validate, add a record, keep the best weights, write a checkpoint."""
        state = self.state
        terms = validation_terms(state, self.validate_data)
        best = state.keep_best(terms["total"]) if terms else False
        record = TrainingRecord(state.images_seen, *_means(state, terms), state.progress.process_seconds, best)
        state.progress.history.append(asdict(record))
        self.spend()
        self.save()
        self.on_record(record)

    def spend(self) -> None:
        """Add the CPU seconds since the last call to the training and to its current stage."""
        counters, now = self.state.progress, time.process_time()
        seconds, self.noted = now - self.noted, now
        counters.process_seconds += seconds
        counters.stage_seconds += [0.0] * (counters.stage + 1 - len(counters.stage_seconds))
        counters.stage_seconds[counters.stage] += seconds

    def save(self) -> None:
        """Write a checkpoint, from one process only."""
        if self.state.accelerator.is_main_process:
            save_checkpoint(self.state, self.folder, self.state.config.keep_checkpoints)
        self.state.accelerator.wait_for_everyone()


def _until_stopped(state: TrainState, data: Images) -> Iterator[StepRecord]:
    if _stop_reason(state):
        return
    for record in train(state, data, state.config.images):
        yield record
        if _stop_reason(state):
            return


def _stop_reason(state: TrainState) -> str:
    """Return why training is over, or "": computed from the counters, so that training continues with a
    larger budget.
    """
    config, counters = state.config, state.progress
    if counters.images_seen >= config.images:
        return "images"
    if state.last_stage and config.patience is not None and counters.stale >= config.patience:
        return "patience"
    if config.max_seconds is not None and _longest(state) >= config.max_seconds:
        return "seconds"
    return ""


def _longest(state: TrainState) -> float:
    """Return the CPU seconds; with several processes the mean, which they all agree on."""
    seconds = state.progress.process_seconds
    if state.accelerator.num_processes == 1:
        return seconds
    return float(state.accelerator.reduce(torch.tensor(seconds, device=state.accelerator.device), "mean"))


def _crossed(state: TrainState, every: int) -> bool:
    seen = state.images_seen
    return seen // every > (seen - state.config.batch_size) // every


def _accumulate(state: TrainState, record: StepRecord) -> None:
    terms = {**record.terms, "images_per_second": record.images_per_second}
    several = len(state.method.phases) > 1
    for name, value in terms.items():
        key = f"{record.phase}/{name}" if several and name != "images_per_second" else name
        state.progress.sums[key] = state.progress.sums.get(key, 0.0) + value
        state.progress.counts[key] = state.progress.counts.get(key, 0) + 1


def _means(state: TrainState, validation: dict[str, float]) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the mean terms since the last record, the validation terms, the speed; then reset the sums."""
    means = {name: value / state.progress.counts[name] for name, value in state.progress.sums.items()}
    state.progress.sums, state.progress.counts = {}, {}
    speed = means.pop("images_per_second", 0.0)
    return means, validation, speed


def validation_terms(state: TrainState, data: Images | None) -> dict[str, float]:
    """Return mean terms of the EMA weights on evenly spread held-out normals; {} without any.

    Each image's randomness depends on its id alone, so that validations are comparable.
    """
    if data is None or len(data) == 0:
        return {}
    count = min(len(data), state.config.validate_images)
    chosen = [i * len(data) // count for i in range(count)]
    sums: dict[str, float] = {}
    for first in range(0, count, state.config.batch_size):
        part = chosen[first : first + state.config.batch_size]
        for name, value in _validate_batch(state, data, part).items():
            sums[name] = sums.get(name, 0.0) + value * len(part) / count
    return sums


def _validate_batch(state: TrainState, data: Images, part: list[int]) -> dict[str, float]:
    batch = replace(on_device(state, collate(data, part)), held_out=True)
    rng = Rng.scoring(state.config.seed, batch.ids, state.accelerator.device)
    with torch.no_grad(), autocast(state):
        return require_finite(state.ema.validation(batch, state.first_phase.name, rng), state)


def complete(method: Method, data: Images, held_out: Images | None, batch_size: int) -> None:
    """Finish the trained method, in eval mode, on every training image once more, then on the held-out normals."""
    method.finish(ordered(data, batch_size))
    if held_out is not None and len(held_out):
        method.standardise(ordered(held_out, batch_size))


def _result(state: TrainState, data: Images, held_out: Images | None) -> FitResult:
    method = state.ema
    if state.best_weights is not None:
        copy_tensors(method.own_state(), state.best_weights, "the best weights")
    complete(method.eval(), data, held_out, state.config.batch_size)
    method = method.to("cpu").arrange().eval()  # as a saved model is loaded, so that both answer with the same bits
    for averaged, trained in zip(method.parameters(), state.method.parameters(), strict=True):
        averaged.requires_grad_(trained.requires_grad)
    counters = state.progress
    history = [TrainingRecord(**record) for record in counters.history]
    best_seen = counters.best_images_seen or counters.images_seen
    return FitResult(
        method, counters.images_seen, counters.best, best_seen, counters.stopped, counters.process_seconds, history,
        tuple(counters.stage_seconds),
    )  # fmt: skip


@contextlib.contextmanager
def _bar(state: TrainState, show: bool) -> Iterator[Callable[[StepRecord], Any]]:
    """Show images seen and the time left."""
    if not show or not state.accelerator.is_main_process:
        yield lambda record: None
        return
    total = state.config.images
    with show_progress(f"training {state.method.config.name}", "images") as update:
        yield lambda record: update(min(record.images_seen, total), total)
