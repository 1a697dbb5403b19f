"""Classifier-free guidance: Ho and Salimans, arXiv:2207.12598."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.sampling import Denoiser
from pipeline.errors import ConfigError
from pipeline.nn.condition import About, ConditionConfig, Conditions
from pipeline.nn.sampling_options import require_between

ConditionalDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, t, c [B, width]) -> eps
STRONGEST = 100.0  # weight beyond which only a slip of the finger is meant


class GuidanceFields(Config):
    """Fields of a method whose network may be conditioned on what the image shows."""

    conditions: ConditionConfig | None = Field(
        None, description="attributes that the network is conditioned on; null none"
    )
    guidance: float = Field(0.0, description="w of classifier-free guidance; 0 is off; needs conditions")

    @model_validator(mode="after")
    def _conditioned(self) -> Self:
        if self.guidance and self.conditions is None:
            raise ValueError(f"guidance {self.guidance} needs conditions. Set method.conditions")
        return self

    @property
    def condition_width(self) -> int | None:
        """Length of the condition's vector; None without conditions."""
        return None if self.conditions is None else self.conditions.width

    @property
    def passes_per_step(self) -> int:
        """Forward passes that one prediction takes: two with guidance."""
        return 1 if self.guidance in (0.0, -1.0) else 2

    def build_conditions(self) -> Conditions | None:
        """Build the module that turns attributes into vectors; None without conditions."""
        return None if self.conditions is None else Conditions(self.conditions)

    def towards(
        self,
        network: Callable[..., Tensor],
        conditions: Conditions | None,
        about: About,
        rows: int,
        guidance: float | None = None,
        copies: int = 1,
    ) -> Denoiser:
        """Return (x_t, t) -> prediction of a network, conditioned on `about` and guided, for copies of a batch.

        Args:
            network: (x_t, t) -> prediction, and (x_t, t, c) with conditions.
            conditions: those of the network; None if it has none.
            about: attributes of each row; () if unknown.
            rows: rows of the batch.
            guidance: w of `guided`; None is the configured one.
            copies: number of times that the rows are repeated, one batch after the other.

        Raises:
            ConfigError: attributes or guidance for a network without conditions, or a weight outside [-1, 100].
        """
        weight = self.guidance if guidance is None else guidance
        require_between("guidance", weight, -1.0, STRONGEST)
        if conditions is None:
            if weight or about:
                raise ConfigError(
                    f"This model has no conditions, so neither attributes nor guidance {weight:g} have an effect. "
                    "Leave them out, or train a model with method.conditions."
                )
            return network
        c, nothing = (conditions(each, rows).repeat(copies, 1) for each in (about, ()))
        return guided(network, c, nothing, weight)


def guided(predict: ConditionalDenoiser, c: Tensor, nothing: Tensor, weight: float) -> Denoiser:
    """Return the denoiser eps~(x_t) = (1 + w) eps(x_t, c) - w eps(x_t, nothing) (eq. 6).

    w = 0 is the conditional model and w = -1 the unconditional one, each at the cost of one pass; any other w costs a
    batch of twice the rows.

    Args:
        predict: the conditional network; it may predict eps, v or x_0, since conversion between them is affine and
            the two weights sum to 1.
        c: [B, width], one condition per row.
        nothing: [B, width], the empty condition, trained by hiding attributes.
        weight: w.
    """
    if weight in (0.0, -1.0):
        alone = c if weight == 0.0 else nothing
        return lambda x_t, t: predict(x_t, t, alone)
    both = torch.cat([c, nothing])

    def combined(x_t: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = predict(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        return (1 + weight) * conditional - weight * unconditional

    return combined
