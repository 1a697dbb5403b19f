"""Configuration of a benchmark (`configs/benchmarks/*.yaml`): methods x scores x seeds on one route."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config, load_config, merge
from pipeline.errors import ConfigError
from pipeline.stages.run.run_config import RunConfig

Criterion = Literal["auroc_central", "auroc", "pixel_ap", "oracle_dice"]
NAME = r"^[\w-]+$"


class Base(Config):
    """The run configuration that all cells are based on."""

    file: str = Field(description="a file of configs/runs, relative to the benchmark's own file")
    set: tuple[str, ...] = Field((), description="overrides `section.field=value` for all cells")


class MethodEntry(Config):
    """One method of the benchmark, with its own budget."""

    name: str = Field(pattern=NAME, description="name of its row in the table")
    method: dict[str, Any] | str | None = Field(None, description="the method, or a file of configs/methods")
    members: tuple[str, ...] = Field(
        (), description="instead of a method: other rows, whose cells of the same score and seed form an ensemble"
    )
    change: dict[str, Any] = Field({}, description="changes to the method's configuration, as in an ablation")
    over_seeds: bool = Field(False, description="for an ensemble: join all seeds of each member into one ensemble")
    data: dict[str, Any] = Field({}, description="changes to the base's data, such as smaller images")
    training: dict[str, Any] = Field({}, description="changes to the base's training: images, batch_size, max_seconds")
    detection: dict[str, Any] = Field({}, description="changes to the base's detection, for every score")
    unlabelled: dict[str, Any] | None = Field(None, description="learning from unlabelled scans, as in a run")
    scores: tuple[str, ...] | None = Field(None, description="only these scores; null for all")
    seeds: tuple[int, ...] | None = Field(None, min_length=1, description="training seeds of this row only")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.method is None) == (not self.members):
            raise ValueError(f"{self.name} needs either a method or members")
        if {"route", "splits", "fold"} & set(self.data):
            raise ValueError(
                f"{self.name} sets route, splits or fold, but all rows share those of the base. Remove them"
            )
        if self.change and self.members:
            raise ValueError(
                f"{self.name} is an ensemble, so it cannot change {', '.join(self.change)}. Change its members instead"
            )
        if self.over_seeds and not self.members:
            raise ValueError(f"{self.name} sets over_seeds without members. Add the rows that it joins")
        return self


class ScoreEntry(Config):
    """One way to compute a score; scores share the trained model."""

    name: str = Field(pattern=NAME, description="name of the score in the table")
    detection: dict[str, Any] = Field({}, description="changes to the method's detection")
    grid: bool = Field(False, description="use the best cell of the score grid on develop")


class BenchmarkConfig(Config):
    """A benchmark: methods x scores x seeds, every choice on develop, the frozen choice once on test."""

    name: str = Field(pattern=NAME, description="folder under `benchmarks/` in the workspace")
    base: Base = Field(description="settings that all cells share")
    methods: tuple[MethodEntry, ...] = Field(min_length=1, description="rows of the table")
    scores: tuple[ScoreEntry, ...] = Field(
        (ScoreEntry(name="own"),), min_length=1, description="scores to try for each method"
    )
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="training seeds; the main table shows the first one, a second table all of them"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=50,
        description="cross-fitting instead of seeds: every patient outside test and gate is held out once, and cell "
        "k of a row is trained with seed k without fold k; results are means over the folds",
    )
    criterion: Criterion = Field("auroc_central", description="metric on develop that chooses each method's score")

    @field_validator("methods", "scores")
    @classmethod
    def _named_once(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        if twice := [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]:
            raise ValueError(f"{', '.join(twice)} occurs more than once, but names must be unique")
        return entries

    @model_validator(mode="after")
    def _scores_exist(self) -> Self:
        defined = {score.name for score in self.scores}
        if odd := sorted({name for entry in self.methods for name in entry.scores or ()} - defined):
            raise ValueError(f"a method names the scores {', '.join(odd)}, which are not defined. Add them to `scores`")
        return self

    @model_validator(mode="after")
    def _folds_or_seeds(self) -> Self:
        if self.folds is None:
            return self
        if self.seeds != (0,) or any(entry.seeds for entry in self.methods):
            raise ValueError("folds replace seeds, since each fold has its own training seed. Remove `seeds`")
        if joined := [entry.name for entry in self.methods if entry.over_seeds]:
            raise ValueError(
                f"{', '.join(joined)} cannot use over_seeds with folds, since the trainings hold out different patients"
            )
        return self

    @model_validator(mode="after")
    def _members_exist(self) -> Self:
        plain = {entry.name: entry for entry in self.methods if not entry.members}
        if odd := sorted({name for entry in self.methods for name in entry.members} - set(plain)):
            raise ValueError(f"members {', '.join(odd)} are not rows with their own method")
        for entry in self.methods:
            for name in entry.members:
                if lacking := set(self.seeds_of(entry)) - set(self.seeds_of(plain[name])):
                    raise ValueError(
                        f"{entry.name} needs the seeds {sorted(lacking)} of {name}, which has "
                        f"{list(self.seeds_of(plain[name]))}. Add them to {name}, or remove them from {entry.name}"
                    )
        return self

    def seeds_of(self, entry: MethodEntry) -> tuple[int, ...]:
        """Return the training seeds of a row, its own or the benchmark's; only the first if it joins all.

        With folds, the seeds are the folds.
        """
        if self.folds is not None:
            return tuple(range(self.folds))
        seeds = self.seeds if entry.seeds is None else entry.seeds
        return seeds[:1] if entry.over_seeds else seeds


@dataclass(frozen=True, slots=True)
class Cell:
    """One (method, score, seed) of a benchmark; its key names its file."""

    method: MethodEntry
    score: ScoreEntry
    seed: int

    @property
    def key(self) -> str:
        """`method.score.seed`."""
        return f"{self.method.name}.{self.score.name}.{self.seed}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark read from its file."""

    config: BenchmarkConfig
    file: Path

    @classmethod
    def read(cls, file: str | Path) -> Benchmark:
        """Read a benchmark; a plain run configuration is a benchmark of its one method.

        Raises:
            ConfigError: the file is neither of the two.
        """
        path = Path(file)
        try:
            return cls(load_config(path, BenchmarkConfig), path)
        except ConfigError as error:
            alone = _of_one(path)
            if alone is None:
                raise error from None
            return cls(alone, path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the resolved configurations of all cells."""
        text = json.dumps([[cell.key, self.run_config(cell).fingerprint()] for cell in self.cells()])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def route(self) -> str:
        """The route that all cells share."""
        return load_config(self.file.parent / self.config.base.file, RunConfig, self.config.base.set).data.route

    def check_purpose(self, open_test: str | None) -> None:
        """Refuse to open test for a benchmark with folds, since each fold is a different model.

        Raises:
            ConfigError: a purpose is given, but the benchmark has folds.
        """
        if open_test is not None and self.config.folds is not None:
            raise ConfigError(
                f"{self.config.name} is cross-fitted over {self.config.folds} folds and uses develop only. Leave "
                "out --open-test; test is for benchmarks without folds."
            )

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, method by method, seed by seed, score by score."""
        for entry in self.config.methods:
            for seed in self.config.seeds_of(entry):
                for score in self.config.scores:
                    if entry.scores is None or score.name in entry.scores:
                        yield Cell(entry, score, seed)

    def members(self, cell: Cell) -> list[Cell]:
        """Return the cells that an ensemble's cell joins, under its own score; empty for other methods."""
        entries = [find_entry(self.config.methods, name) for name in cell.method.members]
        return [
            Cell(entry, cell.score, seed)
            for entry in entries
            for seed in (self.config.seeds_of(entry) if cell.method.over_seeds else (cell.seed,))
        ]

    def groups(self) -> list[tuple[str, int]]:
        """Return (method, seed) of the cells that share a trained model."""
        return list(dict.fromkeys((cell.method.name, cell.seed) for cell in self.cells()))

    def waves(self, groups: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
        """Return the groups in a possible order: ensembles after their members."""
        joined = {entry.name for entry in self.config.methods if entry.members}
        waves = [[group for group in groups if (group[0] in joined) is late] for late in (False, True)]
        return [wave for wave in waves if wave]

    def run_config(self, cell: Cell, members: Sequence[dict[str, str]] = ()) -> RunConfig:
        """Return the configuration of a cell's run (for a grid cell: the starting point of the grid).

        Args:
            cell: one of `cells`.
            members: for an ensemble, run and SHA-256 of each member; the keys of their cells by default.

        Raises:
            ConfigError: the base cannot be read, or a field is unknown or out of range.
        """
        detection = merge(cell.method.detection, cell.score.detection)
        overrides = [
            *self.config.base.set,
            f"method={json.dumps(self._method(cell, members))}",
            *_flat("data", cell.method.data | self._fold(cell)),
            *_flat("training", cell.method.training),
            f"unlabelled={json.dumps(cell.method.unlabelled)}",
            f"training.seed={cell.seed}",
            *_flat("detection", detection),
            f"name={self.config.name}-{cell.method.name}",
        ]
        return load_config(self.file.parent / self.config.base.file, RunConfig, overrides)

    def _fold(self, cell: Cell) -> dict[str, Any]:
        """Return the part of a cell's data section that says which fold is held out; empty without folds."""
        folds = self.config.folds
        return {} if folds is None else {"fold": {"of": folds, "held_out": cell.seed}}

    def _method(self, cell: Cell, members: Sequence[dict[str, str]]) -> dict[str, Any]:
        """Return the section `method` of a cell's run: its (changed) configuration or its members."""
        method = cell.method.method
        if method is None:
            return {"name": "ensemble", "members": list(members) or [{"run": m.key} for m in self.members(cell)]}
        return merge(_section(self.file.parent / method) if isinstance(method, str) else method, cell.method.change)


class _Open(Config):
    """Any mapping; the method's own configuration validates it later."""

    model_config = {"extra": "allow", "frozen": True}


def _section(path: Path) -> dict[str, Any]:
    return load_config(path, _Open).model_dump(mode="json")


def _flat(section: str, values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        name = f"{section}.{key}"
        yield from _flat(name, value) if isinstance(value, dict) else [f"{name}={json.dumps(value)}"]


def _of_one(path: Path) -> BenchmarkConfig | None:
    try:
        run = load_config(path, RunConfig)
    except ConfigError:
        return None
    parts = run.model_dump(mode="json")
    method = MethodEntry(name=run.method.name, method=parts["method"], unlabelled=parts["unlabelled"])
    return BenchmarkConfig(
        name=path.stem.replace(".", "-"), base=Base(file=path.name), methods=(method,), seeds=(run.training.seed,)
    )


def find_entry(entries: Sequence[Any], name: str) -> Any:
    """Return the entry with this name (ConfigError if it does not exist)."""
    matches = [entry for entry in entries if entry.name == name]
    if not matches:
        raise ConfigError(f"The benchmark has no {name!r}. Choose one of {', '.join(entry.name for entry in entries)}.")
    return matches[0]
