"""The table of every configuration field, generated from the models: `make docs` writes it to `configs/README.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.config import Config, Settings
from pipeline.data.labels.finding_codes import FindingList
from pipeline.data.sets.routes import Route
from pipeline.detection.score_grid import GridConfig
from pipeline.monitoring.config import DriftPolicy
from pipeline.review.hanging import HangingList
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.benchmark.config import BenchmarkConfig
from pipeline.stages.generate.restoration.restoration_tasks import (
    InpaintTask,
    OutpaintTask,
    RestoreTask,
    SuperResolveTask,
)
from pipeline.stages.generate.sampling.comparison_config import Comparison
from pipeline.stages.generate.task_config import DenoiseTask, RetrieveTask, SampleTask, TraverseTask, WalkTask
from pipeline.stages.operations.promotion_gates import PromotionGates
from pipeline.stages.run.auto_config import AutoConfig
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.site_config import SiteConfig

HEAD = """# Configuration

Generated from the models by `make docs`; a test fails when it is stale. Every file may start with `extends: other.yaml`
(one level); on the command line, `-s section.field=value` overrides a field. An unknown field is an error.
"""


def models_below(model: type[Config], seen: dict[str, type[Config]] | None = None) -> dict[str, type[Config]]:
    """Return `model` and every configuration model that its fields mention, in order of first mention."""
    models = {} if seen is None else seen
    if model.__name__ in models:
        return models
    models[model.__name__] = model
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            models_below(inner, models)
    return models


def _models_in(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def table(model: type[Config]) -> str:
    """Return one model's section: the first line of its docstring and a table with one row per field."""
    summary = (model.__doc__ or "").strip().splitlines()[0]
    rows = [
        f"| `{name}` | {_kind(field)} | {_default(field)} | {_text(field)} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(
        [f"## {model.__name__}", summary, "", "| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _kind(field: FieldInfo) -> str:
    return f"`{_name(field.annotation)}`".replace("|", "\\|")


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _name(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return " | ".join(_name(a) for a in get_args(annotation))
    text = getattr(annotation, "__name__", str(annotation)) if origin is None else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        return f"see {type(value).__name__}"
    return "" if value is None or value == "" else f"`{value}`"


def _text(field: FieldInfo) -> str:
    limits = [str(limit) for limit in field.metadata if type(limit).__name__ in ("Gt", "Ge", "Lt", "Le")]
    signs = {"Gt(gt=": "> ", "Ge(ge=": ">= ", "Lt(lt=": "< ", "Le(le=": "<= "}
    for long, short in signs.items():
        limits = [limit.replace(long, short).rstrip(")") for limit in limits]
    return "; ".join([field.description or "", *limits]).strip("; ").replace("|", "\\|").replace("\n", " ")


def document() -> str:
    """Return the whole of `configs/README.md`."""
    roots = (
        RunConfig,
        AutoConfig,
        SampleTask,
        WalkTask,
        TraverseTask,
        DenoiseTask,
        SuperResolveTask,
        InpaintTask,
        OutpaintTask,
        RestoreTask,
        RetrieveTask,
        Comparison,
        Route,
        BenchmarkConfig,
        GridConfig,
        PromotionGates,
        DriftPolicy,
        RetentionPolicy,
        Settings,
        FindingList,
        HangingList,
        Schedule,
        SiteConfig,
    )
    models = {name: model for root in roots for name, model in models_below(root).items()}
    return "\n".join([HEAD, *(table(model) for model in models.values())]).rstrip() + "\n"


if __name__ == "__main__":
    (Path(__file__).resolve().parents[2] / "configs" / "README.md").write_text(document(), encoding="utf-8")
