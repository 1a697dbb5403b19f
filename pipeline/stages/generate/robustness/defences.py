"""Defences against attacks: what is done to an image before anybody decides about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.corruption.block_compression import compress
from pipeline.detection.median import median_filter
from pipeline.errors import ConfigError
from pipeline.evaluation.attacks import Defence, passing
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Purifier
from pipeline.nn.rng import Rng
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.robustness.robustness_tasks import PurifyTask

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class NamedDefence:
    """A defence.

    Attributes:
        name: readable, "purified, t* 0.1".
        apply: what it does.
        attackable: the same with the gradient that an attack follows who knows the defence.
        random: whether it draws noise, over which such an attack averages.
        time: t*; None for a defence that does not purify.
    """

    name: str
    apply: Defence
    attackable: Defence
    random: bool = False
    time: float | None = None


def make_defences(method: Method, config: PurifyTask) -> list[NamedDefence]:
    """Return nothing, a median filter, JPEG, and purification to each time of the task, in this order."""

    def median(x: Tensor, rng: Rng) -> Tensor:
        return median_filter(x.contiguous(), config.median)

    def jpeg(x: Tensor, rng: Rng) -> Tensor:
        return compress(x, torch.full((len(x),), float(config.jpeg_quality), device=x.device))

    return [
        NamedDefence(NOTHING, _keep, _keep),
        NamedDefence(f"median filter, {config.median} px", median, median),
        NamedDefence(f"JPEG, quality {config.jpeg_quality}", jpeg, passing(jpeg)),
        *purifications(method, config.times, config.steps, config.gradient == "full"),
    ]


def purifications(method: Method, times: Sequence[float], steps: int, full: bool = True) -> list[NamedDefence]:
    """Return purification to each of the times; `full` gives an attack its gradient, else that of the identity."""
    return [_purification(method, time, steps, full) for time in times]


def _purification(method: Method, time: float, steps: int, full: bool) -> NamedDefence:
    def purified(x: Tensor, rng: Rng) -> Tensor:
        device = device_of(method)
        return method.purify(x.to(device), Rng(rng.keys, device), time, steps).to(x.device)  # type: ignore[operator]

    return NamedDefence(f"purified, t* {time:g}", purified, purified if full else passing(purified), True, time)


def require_purifier(method: Method) -> None:
    """Refuse a method that cannot purify (ConfigError)."""
    if not isinstance(method, Purifier):
        raise ConfigError(
            f"{method.config.name} cannot purify an image, that is noise it in part and denoise it. Choose ddpm or "
            "rectified_flow."
        )


def _keep(x: Tensor, rng: Rng) -> Tensor:
    return x
