"""Plan of a detector that is chosen by facts: these, choices with reasons, the run that they make, and its cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline import durable
from pipeline.config import Settings
from pipeline.stages.auto.members import Role
from pipeline.stages.auto.rules import Choice
from pipeline.stages.auto.scan_facts import Facts
from pipeline.stages.run.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """A chosen ensemble before it is trained.

    Attributes:
        facts: what was measured on the route's normal scans.
        choices: what was decided, in order, each with its reason.
        run: the ensemble's configuration, with members to train.
        expected_minutes: CPU time of all trainings by the measured steps; `budget_minutes` is the most they may take.
        trust: factor of each member's weight, by role; the roles are in the order of the run's members.
    """

    facts: Facts
    choices: tuple[Choice, ...]
    run: RunConfig
    expected_minutes: float
    budget_minutes: float
    trust: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` is the inverse."""
        return {
            "facts": self.facts.to_json(),
            "choices": [choice.to_json() for choice in self.choices],
            "run": self.run.model_dump(mode="json"),
            "expected_minutes": self.expected_minutes,
            "budget_minutes": self.budget_minutes,
            "trust": dict(self.trust),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan of `to_json` (ValueError if it has members of other roles than a plan has today)."""
        if not set(values["trust"]) <= set(get_args(Role)):
            raise ValueError(f"roles {sorted(values['trust'])}")
        return cls(
            Facts(**values["facts"]),
            tuple(Choice(**choice) for choice in values["choices"]),
            RunConfig.model_validate(values["run"]),
            float(values["expected_minutes"]),
            float(values["budget_minutes"]),
            dict(values["trust"]),
        )

    def sentence(self) -> str:
        """Return what was chosen and why, and how long it will take, in words."""
        facts, data = self.facts, self.run.data
        lines = [
            f"Looked at the normal scans of {data.route}: {facts.train} slices to train on, {facts.validate} to weigh "
            f"the members with, {facts.units} cases to calibrate on."
        ]
        lines += [f"  {choice.what}: {in_words(choice.value)}. Because {choice.why}" for choice in self.choices]
        lines.append(
            f"Training takes about {self.expected_minutes:.1f} CPU minutes by a few steps measured on this machine (at "
            f"most {self.budget_minutes:g}); weighing and calibration come on top."
        )
        return "\n".join(lines)


def in_words(value: Any) -> str:
    """Return a choice's value for a person: names with their values, without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(one)}" for name, one in value.items() if one not in ({}, None)) or "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def plan_file(settings: Settings, name: str) -> Path:
    """Return where the plan of an automatic run is kept, so that an interrupted one goes on with the same numbers."""
    return settings.workspace / "auto" / f"{name}.json"


def read_plan(path: Path) -> Plan | None:
    """Return the plan in a file; None where it is missing or not a plan of this release."""
    try:
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write(path, json.dumps(plan.to_json(), indent=2))
