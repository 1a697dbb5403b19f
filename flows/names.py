"""Readable names for flow runs, made of counts, routes and dates only, since a path may name a patient."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect.runtime import flow_run

from flows.request import read_request, read_roots
from pipeline.errors import NightreadError
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.run.auto_config import load_run


def _parameters() -> dict[str, Any]:
    return dict(flow_run.parameters)


def read_due_time() -> datetime:
    """Return when the flow run was due (UTC without time zone): its scheduled time, or now outside a run."""
    due_at: datetime = flow_run.scheduled_start_time or datetime.now(UTC)
    return due_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _when() -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"


def ingest_name() -> str:
    """`ingest of 2 roots, 2026-03-01 01:30`."""
    try:
        request, workspace = _parameters()["request"], _parameters()["workspace"]
        roots, labels = read_roots(request, workspace), read_request(request).labels
    except NightreadError:
        return f"ingest, {_when()}"
    counts = ((len(roots), "root"), (len(labels), "label file"))
    parts = [f"{n} {noun}{'s' * (n != 1)}" for n, noun in counts if n]
    return f"ingest of {' and '.join(parts) or 'nothing'}, {_when()}"


def train_name() -> str:
    """`train phantom-mr with dae, 2026-03-01 01:30`."""
    try:
        config = load_run(_parameters()["config"])
    except NightreadError:
        return f"train, {_when()}"
    return f"train {config.data.route} with {config.method.name}, {_when()}"


def score_name() -> str:
    """`score, 2026-03-01 01:30`."""
    return f"score, {_when()}"


def evaluate_name() -> str:
    """`evaluate, 2026-03-01 01:30`."""
    return f"evaluate, {_when()}"


def night_name() -> str:
    """`night of 2026-03-01 01:30`."""
    return f"night of {_when()}"


def name_schedule() -> str:
    """`weekly, 2026-03-01 04:00`."""
    try:
        return f"{read_request(_parameters()['request']).name}, {_when()}"
    except NightreadError:
        return f"scheduled, {_when()}"


def benchmark_name() -> str:
    """`benchmark lgg, 2026-03-01 01:30`."""
    try:
        return f"benchmark {Benchmark.read(_parameters()['file']).config.name}, {_when()}"
    except NightreadError:
        return f"benchmark, {_when()}"


def generate_name() -> str:
    """`sample mednist-ddpm, 2026-03-01 01:30`."""
    try:
        config = load_task(_parameters()["config"])
    except NightreadError:
        return f"generate, {_when()}"
    return f"{config.task} {config.name}, {_when()}"
