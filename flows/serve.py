"""Register the nightly flow with its schedule and stay up to run it. `nightread serve`"""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from flows.server import prefect_server
from pipeline.config import Config, Settings, load_config
from pipeline.errors import ConfigError


class Schedule(Config):
    """When the night runs, and on what: `configs/schedules/*.yaml`."""

    name: str = Field("nightly", description="deployment name in Prefect")
    cron: str = Field("30 1 * * *", description="minute hour day month weekday")
    timezone: str = Field("UTC", description="IANA name; the clock that cron means")
    roots: tuple[str, ...] = Field(description="folders and archives to ingest")
    configs: tuple[str, ...] = Field(description="run configurations, one a route")
    labels: tuple[str, ...] = Field((), description="label files to import after every ingest")

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("is no IANA time zone such as Europe/Berlin") from None
        return name


def serve_schedule(file: Path, settings: Settings, port: int = 0) -> None:
    """Serve the nightly flow until interrupted; one night at a time.

    Args:
        file: the schedule.
        settings: the workspace that every night uses.
        port: of the Prefect server that is started where PREFECT_API_URL names none; 0 takes a free one.

    Raises:
        ConfigError: the schedule file or its cron line is wrong, or Prefect's server does not start.
    """
    schedule = load_config(file, Schedule)
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with prefect_server(home / "server.log", port) as url:
        print(f"Prefect: {url.removesuffix('/api')}", flush=True)
        _serve(schedule, settings)


def _serve(schedule: Schedule, settings: Settings) -> None:
    # Prefect settles its server when it is first imported, so nothing of it may be imported before the server is up.
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    from flows.nightly import nightly

    try:
        cron = Cron(schedule.cron, timezone=schedule.timezone)
    except ValueError as error:
        raise ConfigError(f"The schedule {schedule.cron!r} is no cron line: {error}") from None
    nightly.serve(
        name=schedule.name,
        schedules=[cron],
        parameters={
            "roots": [str(Path(root).absolute()) for root in schedule.roots],
            "configs": [str(Path(config).absolute()) for config in schedule.configs],
            "labels": [str(Path(file).absolute()) for file in schedule.labels],
            "workspace": str(settings.workspace),
        },
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
