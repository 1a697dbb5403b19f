"""Invalid values are explained in words of ours, with the rule and the value; the validator's text does not show."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import Field, ValidationError, field_validator

from pipeline.cli import group
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.invalid_values import explain, explain_options


class Values(Config):
    """A field of each kind."""

    count: int = Field(1, ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    on: bool = False
    day: date | None = None
    kind: Literal["a", "b"] = "a"
    name: str = Field("x", min_length=1, max_length=3)
    code: str = Field("AB", pattern="^[A-Z]+$")
    several: tuple[int, ...] = Field((), max_length=2)
    own: str = ""
    filled: tuple[int, ...] = Field((1,), min_length=1)
    mixed: Literal["all"] | dict[str, int] = "all"

    @field_validator("own")
    @classmethod
    def _own(cls, value: str) -> str:
        if value:
            raise ValueError("is not ours: leave it out.")
        return value


CASES = {
    "count": [(0, "must be 1 or more"), (10, "must be 9 or less"), ("x", "whole number"), (1.5, "whole number")],
    "share": [(0, "must be greater than 0"), (1, "must be less than 1"), ("x", "must be a number")],
    "on": [("maybe", "true or false")],
    "day": [("31.12.2026", "YYYY-MM-DD"), ("2026-02-30", "YYYY-MM-DD")],
    "kind": [("c", "'a' or 'b'")],
    "name": [("", "must not be empty"), ("long name", "at most 3 characters")],
    "code": [("ab", "^[A-Z]+$")],
    "several": [((1, 2, 3), "at most 2 entries")],
    "own": [("x", "is not ours: leave it out")],
    "mixed": [("some", "must be 'all'"), ("some", "must be a section with names and values")],
    "unknown": [(1, "does not exist")],
}


@pytest.mark.parametrize(("field", "value", "rule"), [(f, *case) for f, cases in CASES.items() for case in cases])
def test_the_rule_is_stated(field: str, value: Any, rule: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Values(**{field: value})
    text, options = explain(caught.value, "a.yaml"), explain_options(caught.value)
    assert text.splitlines()[0] == "a.yaml is not valid:" and text.splitlines()[1].startswith(f"  {field}: ")
    assert rule in text and rule in options
    assert options.startswith(f"--{field} ") and options.endswith(".") and not options.endswith("..")
    for raw in ("Input should", "Value error", "[type=", "Extra inputs"):
        assert raw not in text and raw not in options


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pull", "A@b:104"], "--all"),
        (["pull", "A@b:104", "--since", "31.12.2026"], "--since"),
        (["pull", "A@b:104", "--all", "--associations", "0"], "--associations"),
        (["pull", "A@b:104", "--modality", "ct?"], "--modality"),
        (["pull", "A@b:104", "--all", "--mib-per-second", "0"], "--mib-per-second"),
        (["pull", "A@b:104", "--all", "--ae-title", "x" * 17], "--ae-title"),
        (["listen", "--port", "70000", "--allow-any"], "--port"),
        (["listen"], "--allow"),
        (["review", "start", "--port", "70000"], "--port"),
    ],
)
def test_commands_name_the_option(arguments: list[str], named: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["-w", str(tmp_path), *arguments])
    assert done.exit_code == ConfigError.exit_code
    assert named in done.output
    for raw in ("Input should", "Value error", "options:", "validation error", "`allowed`", "`everything`"):
        assert raw not in done.output


def test_a_list_with_an_invalid_entry_is_not_called_empty() -> None:
    with pytest.raises(ValidationError) as caught:
        Values(filled=("x",))  # type: ignore[arg-type]
    assert explain(caught.value, "a.yaml").splitlines() == [
        "a.yaml is not valid:",
        "  filled.0: must be a whole number (got 'x')",
    ]
