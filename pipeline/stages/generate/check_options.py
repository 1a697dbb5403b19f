"""Check of a sampler's options before anything is trained or drawn: their types, and their ranges by a rehearsal.

Every sampler checks its options before it draws the first random number. So `sample` is called with streams that have
no numbers: it refuses what is out of range, or stops at the first draw, before its networks work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from pipeline.errors import ArtefactError, ConfigError
from pipeline.invalid_values import state_rule
from pipeline.methods.base import Method
from pipeline.nn.condition import About
from pipeline.nn.rng import Rng, SeedPart


def check_options(method: Method, options: Mapping[str, Any], about: About, device: torch.device) -> None:
    """Check the values of options that `method.sample` has, with the conditions of one image; nothing is drawn.

    Raises:
        ConfigError: a value of another type or out of its range, or a condition that the method cannot use.
    """
    hints = get_type_hints(cast(Any, method).sample)
    for name, value in options.items():
        _check_type(name, value, hints[name])
    conditions = {"about": list(about[:1])} if about else {}
    try:
        cast(Any, method).sample(_Rehearsal(device), **conditions, **options)
    except (_FirstDraw, ArtefactError):  # an untrained method may lack what it draws with
        return


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Refuse another type; true is not 1, and 2.5 is not cut to 2."""
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=True)
    except ValidationError as error:
        rule = state_rule(error.errors()[0])
        raise ConfigError(f"The option {name} is {value!r}, but it {rule}. {_next_step(value)}") from None


def _next_step(value: Any) -> str:
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return "Change it in the task's file or with -s."
    return "YAML reads this as text: write it without quotes, and an exponent with a point and a sign, such as 1.0e-3."


class _FirstDraw(Exception):
    """The sampler draws its first random number."""


class _Rehearsal(Rng):
    """Streams of one row without any numbers."""

    def __init__(self, device: torch.device) -> None:
        super().__init__([0], device)

    def fork(self, name: SeedPart) -> Rng:
        """Return the same."""
        return self

    def rows(self, indices: Sequence[int]) -> Rng:
        """Return the same."""
        return self

    def integers(self, low: int, high: int, *shape: int) -> NoReturn:
        """Stop."""
        raise _FirstDraw

    def poisson(self, rate: Tensor) -> NoReturn:
        """Stop."""
        raise _FirstDraw

    def _fill(self, shape: Sequence[int], draw: Callable[[Tensor, torch.Generator], object]) -> NoReturn:
        raise _FirstDraw
