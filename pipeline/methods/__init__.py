"""Methods of anomaly detection, their registry, and trained models.

`load_model` and `save_model` are the doors to a trained one.
"""

from __future__ import annotations

from pipeline.methods.method_registry import METHODS, AnyMethodConfig, build_method, parse_method, sees_the_other_side
from pipeline.methods.stored_model import Model, load_model, save_model

__all__ = [
    "METHODS",
    "AnyMethodConfig",
    "Model",
    "build_method",
    "load_model",
    "parse_method",
    "save_model",
    "sees_the_other_side",
]
