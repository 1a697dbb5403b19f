"""Measurement of what training costs on this machine, by a few steps of each network, and how a budget is divided."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.methods.base import Method
from pipeline.stages.auto.members import FROZEN, Role
from pipeline.stages.detect.build_run_method import build_untrained
from pipeline.stages.run.run_config import RunConfig
from pipeline.training.loop import train
from pipeline.training.order import Images, collate, draw_indices
from pipeline.training.state import TrainState

WARM_UP, STEPS = 2, 5  # of one batch each
SPARE = 0.85  # of a member's share is planned with; the rest is for validations, and for a machine that gets busier
LEAST_IMAGES = 320  # a training of fewer is not worth its name
MOST_IMAGES, MOST_REPEATS = 48_000, 300  # more of the same images teaches little


@dataclass(frozen=True, slots=True)
class Share:
    """The budget of one training: `images`, or as many as `seconds` of CPU time allow; `expected` seconds."""

    images: int
    seconds: float
    expected: float


def measure_seconds_per_image(config: RunConfig, data: Images) -> float:
    """Return the CPU seconds, over all threads, that one image costs in training or, without phases, in fitting.

    Args:
        config: the run of one member.
        data: its training images; a few batches are read, nothing is written.
    """
    method = build_untrained(config, {})
    return _fitting(method, config, data) if not method.phases else _steps(method, config, data)


def _steps(method: Method, config: RunConfig, data: Images) -> float:
    state, batch = TrainState(method, config.training), config.training.batch_size
    for _ in train(state, data, WARM_UP * batch):
        pass
    began = time.process_time()
    for _ in train(state, data, (WARM_UP + STEPS) * batch):
        pass
    return (time.process_time() - began) / (STEPS * batch)


def _fitting(method: Method, config: RunConfig, data: Images) -> float:
    """Return what one image costs to look at; what is done with all of them at the end is not known beforehand."""
    batch = collate(data, draw_indices(config.training.seed, 0, config.training.batch_size, len(data)))
    backbone = getattr(method, "backbone", None)
    if backbone is None:
        return 0.0
    began = time.process_time()
    with method.eval().inference():
        backbone(batch.images)
    return (time.process_time() - began) / config.training.batch_size


def divide(minutes: float, seconds_per_image: Mapping[Role, float], normals: int) -> dict[Role, Share]:
    """Divide a budget of CPU minutes: features take what one pass costs, the trainings share the rest equally.

    Args:
        minutes: of all members together.
        seconds_per_image: what an image costs each member.
        normals: training images.
    """
    features = {role: seconds_per_image[role] * normals for role in FROZEN if role in seconds_per_image}
    trained = [role for role in seconds_per_image if role not in FROZEN]
    share = max(60 * minutes - sum(features.values()), 0.5 * 60 * minutes) / max(len(trained), 1)
    shares: dict[Role, Share] = {role: _share(share, seconds_per_image[role], normals) for role in trained}
    return shares | {role: Share(normals, seconds, seconds) for role, seconds in features.items()}


def _share(seconds: float, each: float, normals: int) -> Share:
    """Return the most images that fit, in whole batches of 16."""
    fit = int(SPARE * seconds / max(each, 1e-9))
    images = max(LEAST_IMAGES, min(fit, MOST_IMAGES, MOST_REPEATS * normals)) // 16 * 16
    return Share(images, seconds, min(images * each / SPARE, seconds))
