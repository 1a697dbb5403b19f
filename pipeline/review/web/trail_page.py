"""The audit page of a finding: everything behind its score on one page to print, from the list or the audit log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import Response

from pipeline.data.catalogue.schema import now
from pipeline.errors import CatalogueError
from pipeline.review.finding_trail import read_finding_trail
from pipeline.review.refusals import NotAllowed, UnknownFinding
from pipeline.review.web.access import Reader, RoomHere, require_permission
from pipeline.review.web.pages import page
from pipeline.stages.audit.audit_trail import write_retention

router = APIRouter()
Tracer = Annotated[Reader, Depends(require_permission("trace"))]


@router.get("/audit/finding")
def trail_page(
    request: Request, room: RoomHere, reader: Tracer, name: Annotated[str, Query(max_length=80)] = ""
) -> Response:
    """Show what led to a finding, named by its number or by the beginning of its study's pseudonym."""
    try:
        trail = read_finding_trail(room.catalogue, room.settings, room.review, name, reader.actor)
    except NotAllowed as error:
        raise HTTPException(403, str(error)) from None
    except (CatalogueError, UnknownFinding) as error:
        raise HTTPException(404, str(error)) from None
    context: dict[str, Any] = {
        "trail": trail,
        "retention": list(write_retention(trail)),
        "environments": _compare_environments(trail),
        "configs": {one["run"]: _write_config(one["config"]) for one in trail["training"]},
        "models": _flatten(trail["models"]),
        "counted": _count,
        "printed_at": f"{now():%Y-%m-%d %H:%M}",
    }
    return page(request, room, reader, "trail.html", "audit", **context)


def _count(sets: Mapping[str, Mapping[str, Any]], what: str) -> list[tuple[Any, ...]]:
    """Return rows of a set's name, its number of patients or slices, and their fingerprint."""
    return [(name, one[what], one["sha256"]) for name, one in sets.items()]


def _write_config(config: Mapping[str, Any]) -> str:
    # By way of JSON, as YAML would write tuples with tags of Python.
    return str(yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False)) if config else ""


def _flatten(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return models with their components behind them."""
    return [one for model in models for one in (model, *_flatten(model["components"]))]


def _compare_environments(trail: Mapping[str, Any]) -> dict[str, Any]:
    """Return code, packages and machine as a table: a column for the night that scored and for each training."""
    columns = {"scored": trail["scored_by"]["environment"]}
    columns |= {one["run"]: one["environment"] for one in trail["training"]}
    recorded = {name: one if isinstance(one, Mapping) else {} for name, one in columns.items()}
    names = dict.fromkeys(name for one in recorded.values() for name in one)
    rows = [[name, *(one.get(name, "-") for one in recorded.values())] for name in names]
    return {"heads": ["component", *columns], "rows": rows}
