"""Configuration of a comparison of samplers: one task, and the methods that it is run with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Config, load_config, merge, parse_config, read_values
from pipeline.errors import ConfigError
from pipeline.stages.generate.task_config import TASKS, SampleTask, Value, kind_of, refuse_empty_sweep

NAME = r"^[\w.-]+$"


class SamplerEntry(Config):
    """One sampler of a comparison, with its own budget and options."""

    name: str = Field(pattern=NAME, description="name of its rows in the table")
    method: dict[str, Any] | str = Field(description="the method, or a file of configs/methods, relative to this file")
    change: dict[str, Any] = Field({}, description="changes to the method's configuration")
    training: dict[str, Any] = Field({}, description="changes to the task's training: images, batch_size, max_seconds")
    options: dict[str, Value] = Field({}, description="keywords of the method's `sample`")
    sweep: dict[str, tuple[Value, ...]] = Field({}, max_length=1, description="one of them with several values")
    about: Literal["held-out", "none"] | None = Field(None, description="conditions; null leaves those of the task")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="training seeds, each a row")

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        refuse_empty_sweep(self.sweep)
        return self


class TaskBase(Config):
    """The task that all samplers of a comparison share."""

    file: str = Field(description="a file of configs/tasks, relative to the comparison's own file")
    set: tuple[str, ...] = Field((), description="overrides `section.field=value` for all samplers")


class Comparison(Config):
    """Samplers side by side: each is trained on the same images, draws as many, and is judged in the same way."""

    task: Literal["compare"] = "compare"
    name: str = Field(pattern=NAME, description="folder under `generated/` in the workspace")
    base: TaskBase = Field(description="the task that all samplers share")
    samplers: tuple[SamplerEntry, ...] = Field(min_length=1, description="rows of the table")

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        counts = Counter(entry.name for entry in self.samplers)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{', '.join(twice)} occurs more than once, but names must be unique")
        return self


def load_comparison(path: str | Path) -> Comparison:
    """Read a comparison.

    Raises:
        ConfigError: see `pipeline.config.load_config`, or the file is another task.
    """
    named = kind_of(read_values(path))
    if named in TASKS:
        raise ConfigError(
            f"{path} is one task of the kind {named}, not a comparison. Run it with nightread generate {named} {path}"
        )
    return load_config(path, Comparison)


def list_tasks_of(comparison: Comparison, path: str | Path) -> Iterator[tuple[str, SamplerEntry, SampleTask]]:
    """Yield the row's name, the sampler and the task of each sampler and seed.

    The baseline is a row of its own, and not one of each task.

    Raises:
        ConfigError: the base or a method cannot be read, or has an unknown or out-of-range field.
    """
    folder = Path(path).parent
    base = read_values(folder / comparison.base.file, comparison.base.set)
    for entry in comparison.samplers:
        method = entry.method if isinstance(entry.method, dict) else read_values(folder / entry.method)
        for seed in entry.seeds:
            name = entry.name if len(entry.seeds) == 1 else f"{entry.name}, seed {seed}"
            yield name, entry, parse_config(_values_of(comparison, base, entry, method, seed), SampleTask, path)


def _values_of(
    comparison: Comparison, base: dict[str, Any], entry: SamplerEntry, method: dict[str, Any], seed: int
) -> dict[str, Any]:
    name = f"{comparison.name}-{entry.name}" + (f"-{seed}" if len(entry.seeds) > 1 else "")
    training = {**base["run"].get("training", {}), **entry.training, "seed": seed}
    run = {**base["run"], "name": name, "method": merge(method, entry.change), "training": training}
    own: dict[str, Any] = {"name": name, "run": run, "options": entry.options, "sweep": entry.sweep}
    own |= {"judge": {**base.get("judge", {}), "baseline": None}}
    return {**base, **own, **({} if entry.about is None else {"about": entry.about})}
