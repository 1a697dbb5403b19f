"""Register the nightly flow with its schedule and keep running to execute it. `nightread serve`"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flows.request import read_request, write_request
from flows.server import run_server
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.run.auto_config import load_run
from pipeline.stages.watch.nights import register_schedules
from pipeline.stages.watch.schedule import Schedule


def serve_schedule(file: Path, settings: Settings, port: int = 0) -> None:
    """Serve the nightly flow until interrupted or terminated (SIGINT, SIGTERM); one night at a time.

    The server and a running night end with it.

    Args:
        file: the schedule.
        settings: the workspace that every night uses.
        port: port of the Prefect server that is started if PREFECT_API_URL is not set; 0 chooses a free one.

    Raises:
        ConfigError: the schedule file or its cron line is not valid, or Prefect's server does not start.
    """
    schedule = read_request(str(file))
    for config in schedule.configs:
        load_run(config)  # report an error now rather than at half past one at night
    for task in schedule.tasks:
        load_task(task)
    # Until Prefect's runner handles the signal, its default action would end this process and orphan the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    register_schedules(settings, [schedule])
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with run_server(home / "server.log", port) as url:
        print(f"Prefect: {url.removesuffix('/api')}", flush=True)
        print(
            f"The night {schedule.name!r} runs at {schedule.cron!r} ({schedule.timezone}) while this process runs; "
            "Ctrl-C "
            f"stops it.\nRun it now with PREFECT_API_URL={url} prefect deployment run nightly/{schedule.name}",
            flush=True,
        )
        _serve(schedule, settings)


def _serve(schedule: Schedule, settings: Settings) -> None:
    # Prefect chooses its server when it is first imported, so no part of it may be imported before the server is up.
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    from flows.nightly import nightly

    try:
        cron = Cron(schedule.cron, timezone=schedule.timezone)
    except ValueError as error:
        raise ConfigError(
            f"The schedule {schedule.cron!r} is not a cron line: {error}. Write minute, hour, day, month and weekday."
        ) from None
    parts = (schedule.roots, schedule.configs, schedule.labels, schedule.tasks)
    paths = ([str(Path(p).absolute()) for p in part] for part in parts)
    nightly.serve(
        name=schedule.name,
        schedules=[cron],
        parameters={
            "request": str(write_request(settings, *paths, schedule=schedule.name)),  # type: ignore[misc, arg-type]  # four lists
            "workspace": str(settings.workspace),
        },
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )
