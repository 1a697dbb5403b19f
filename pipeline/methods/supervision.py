"""Kinds of supervision, by which leaderboards tell methods apart."""

from __future__ import annotations

from typing import Literal

from pipeline.config import Config
from pipeline.nested import find_values

Supervision = Literal["normals", "unlabelled", "labels"]


def find_supervision(config: Config) -> Supervision:
    """Return what a method learns from: unlabelled scans too if it, or a component of it, pastes what is in them."""
    pastes = any(value is not None for value in find_values(config.model_dump(), "pasting"))
    return "unlabelled" if pastes else "normals"
