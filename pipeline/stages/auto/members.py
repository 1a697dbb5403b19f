"""The members of a chosen ensemble: method, training and detection of each, as sections of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.stages.auto.painters import painting

Role = Literal["reconstructor", "head", "memory", "gaussian"]
FROZEN: tuple[Role, ...] = ("memory", "gaussian")  # frozen features, which are not taught what to find
BATCH = 16
WIDE, NARROW = (32, 32, 64, 96, 128, 32), (16, 16, 32, 64, 128, 16)
LARGE = 64  # pixels from which patches of two are folded into channels, which costs half


@dataclass(frozen=True, slots=True)
class Build:
    """What the choices say about the members, without their reasons."""

    image_size: int
    mirrored: bool
    adjacent: float
    reconstructor: str
    backbone: Mapping[str, Any]
    lesions: float
    features: float
    seed: int


def build_members(build: Build) -> dict[Role, dict[str, Any]]:
    """Return the sections of each member's run, without budgets."""
    large = build.image_size >= LARGE
    network = {"widths": WIDE if large else NARROW, "patch": 2 if large else 1, "mirrored": build.mirrored}
    learning = {"batch_size": BATCH, "patience": None, "schedule": "cosine", "precision": "auto", "seed": build.seed}
    median = 5 if build.image_size > 32 else 3
    methods: dict[Role, dict[str, Any]] = {
        "head": {"name": "synthetic_lesion", **network, **painting(build.mirrored)},
        "reconstructor": {"name": build.reconstructor, **network, **painting(build.mirrored)},
        "memory": {"name": "knn_features", "backbone": dict(build.backbone)},
        "gaussian": {"name": "gaussian_features", "backbone": dict(build.backbone)},
    }
    cleaning: dict[Role, dict[str, Any]] = {
        "head": {"median": median},
        "reconstructor": {"kind": "l1", "median": median},
        **dict.fromkeys(FROZEN, {"median": 1, "smooth_fraction": 0.03}),
    }
    return {
        role: {
            "method": method,
            "training": {"seed": build.seed} if role in FROZEN else learning,
            "detection": {
                "residual": {
                    "erode": 2 if build.image_size >= 128 else 1,
                    "adjacent": build.adjacent,
                    **cleaning[role],
                },
                "aggregate": _aggregate(build.features if role in FROZEN else build.lesions),
            },
        }
        for role, method in methods.items()
    }


def _aggregate(fraction: float) -> dict[str, Any]:
    return {"map": "mean"} if fraction == 1 else {"map": "top_fraction", "fraction": fraction}


def with_budget(sections: dict[str, Any], images: int, seconds: float) -> dict[str, Any]:
    """Return the sections of a member with its budget: `images`, or fewer where `seconds` of CPU time end first."""
    every = max(images // 3, 1)
    budget = {"images": images, "validate_every_images": every, "max_seconds": round(seconds, 1)}
    return {**sections, "training": {**sections["training"], **budget}}
