"""Register the scheduled flows and keep running to execute them. `nightread serve`"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.home import make_home
from flows.request import write_request
from flows.server import run_server
from pipeline.config import Settings, find_shipped_file, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.errors import ConfigError
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.run.auto_config import load_run
from pipeline.stages.watch.nights import beat, has_run_since, list_schedules, register_schedules
from pipeline.stages.watch.schedule import Schedule

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

BEAT, BEAT_SECONDS = "schedules", 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A schedule with the name of its flow in Prefect, and its firing that an outage left out, if there is one."""

    schedule: Schedule
    flow_name: str
    missed: bool


def serve_schedules(files: Sequence[Path], settings: Settings, port: int = 0) -> None:
    """Serve the scheduled flows until interrupted or terminated (SIGINT, SIGTERM); one run of each at a time.

    The server and a running night end with it. Where a firing was missed, one run makes up for all of them at once, if
    the schedule catches up and its windows are open.

    Args:
        files: the schedules.
        settings: the workspace that every run uses.
        port: port of the Prefect server that is started if PREFECT_API_URL is not set; 0 chooses a free one.

    Raises:
        ConfigError: a schedule or a file that it names is not valid, or Prefect's server does not start.
    """
    schedules = [_with_shipped(load_config(file, Schedule)) for file in files]
    _check(schedules)
    served = [Served(one, _flow_name(one), _is_behind(settings, one)) for one in schedules]
    register_schedules(settings, schedules)
    # Until Prefect's runner handles the signal, its default action would end this process and orphan the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = make_home()
    with run_server(home / "server.log", port) as url:
        print(f"Prefect: {url.removesuffix('/api')}", flush=True)
        for one in served:
            _announce(one, url)
        deployments = [_deployment(one, settings) for one in served]
        asyncio.run(_serve(served, deployments, settings))


def _with_shipped(schedule: Schedule) -> Schedule:
    """Return the schedule with the paths of shipped configurations where a name is not a file here."""
    names = {"configs": schedule.configs, "tasks": schedule.tasks}
    places = {
        part: tuple(file if Path(file).is_file() else str(find_shipped_file(file)) for file in files)
        for part, files in names.items()
    }
    return schedule.model_copy(update=places)


def _check(schedules: Sequence[Schedule]) -> None:
    """Report an error in a file now rather than at half past one at night."""
    names = [schedule.name for schedule in schedules]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two schedules have the same name ({', '.join(sorted(names))}). Give each its own.")
    for schedule in schedules:
        for config in schedule.configs:
            _ = Benchmark.read(config) if schedule.flow == "benchmark" else load_run(config)
        for task in schedule.tasks:
            load_task(task)


def _flow_name(schedule: Schedule) -> str:
    return "nightly" if schedule.flow == "nightly" else f"{schedule.flow}-scheduled"


def _is_behind(settings: Settings, schedule: Schedule) -> bool:
    """Whether a firing passed while nothing was served, and no run has made up for it."""
    with Catalogue.open(settings) as catalogue:
        since = {one.name: since for one, since in list_schedules(catalogue)}.get(schedule.name)
        due = schedule.last_firing(now())
        if since is None or due is None or due <= since:
            return False
        return not has_run_since(catalogue, schedule.name, schedule.counts_from(due))


def _announce(served: Served, url: str) -> None:
    schedule = served.schedule
    print(
        f"The run {schedule.name!r} of {schedule.flow} begins at {schedule.cron!r} ({schedule.timezone}) while this "
        f"process runs; Ctrl-C stops it.\nRun it now with PREFECT_API_URL={url} prefect deployment run "
        f"{served.flow_name}/{schedule.name}",
        flush=True,
    )


@contextmanager
def _beating(settings: Settings) -> Iterator[None]:
    """Leave a sign of life every half minute, for the watch."""
    ended = threading.Event()

    def run() -> None:
        while True:
            beat(settings, BEAT)
            if ended.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


async def _serve(served: Sequence[Served], deployments: Sequence[RunnerDeployment], settings: Settings) -> None:
    from prefect.runner import Runner

    runner = Runner()
    for one, deployment in zip(served, deployments, strict=True):
        await _catch_up(one, await runner.aadd_deployment(deployment))
    with _beating(settings):
        await runner.start()


def _deployment(served: Served, settings: Settings) -> RunnerDeployment:
    # Prefect chooses its server when it is first imported, so no part of it may be imported before the server is up.
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    from flows.nightly import nightly
    from flows.scheduled import benchmark_scheduled, generate_scheduled, retention_scheduled, train_scheduled

    schedule = served.schedule
    flows: dict[str, Any] = {
        **{"train": train_scheduled, "benchmark": benchmark_scheduled, "generate": generate_scheduled},
        "retention": retention_scheduled,
    }
    parts = (schedule.roots, schedule.configs, schedule.labels, schedule.tasks)
    paths = ([str(Path(p).absolute()) for p in part] for part in parts)
    deployment: RunnerDeployment = flows.get(schedule.flow, nightly).to_deployment(
        name=schedule.name,
        schedules=[Cron(line, timezone=schedule.timezone) for line in schedule.cron_lines()],
        parameters={
            "request": str(write_request(settings, *paths, schedule=schedule.name)),  # type: ignore[misc, arg-type]  # four lists
            "workspace": str(settings.workspace),
        },
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return deployment


async def _catch_up(served: Served, number: Any) -> None:
    """Delete the runs that are overdue, which Prefect would all begin at once, and begin one in their place."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.types._datetime import now as prefect_now

    overdue = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[number]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=prefect_now("UTC")),
    )
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=overdue):
            await client.delete_flow_run(run.id)
        if served.missed and served.schedule.catch_up and served.schedule.is_open(now()):
            print(f"{served.schedule.name}: a run was missed while nothing was served; it begins now.", flush=True)
            await client.create_flow_run_from_deployment(number)
