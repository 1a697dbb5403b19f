"""Task runners of Prefect that share the scoring of a night: threads, a Dask cluster, a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipeline.config import ScoringPolicy
from pipeline.errors import ConfigError


def build_runner(policy: ScoringPolicy) -> TaskRunner[Any]:
    """Return the task runner of a policy; a Dask or Ray cluster without an address is started on the loopback.

    Raises:
        ConfigError: the extra is not installed, or no Prefect server is running that every process could use.
    """
    if policy.runner in ("threads", "pool"):
        return ThreadPoolTaskRunner(max_workers=policy.workers)
    if importlib.util.find_spec(f"prefect_{policy.runner}") is None:
        raise ConfigError(
            f"scoring.runner is {policy.runner!r}, but prefect-{policy.runner} is not installed. Install it with pip "
            f"install 'nightread[{policy.runner}]', or set threads or pool."
        )
    if "PREFECT_API_URL" not in os.environ:
        raise ConfigError(
            f"scoring.runner is {policy.runner!r}, and its processes need a Prefect server that all of them reach. Run "
            "nightread up or prefect server start, and set PREFECT_API_URL."
        )
    return _dask(policy) if policy.runner == "dask" else _ray(policy)


def _dask(policy: ScoringPolicy) -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    if policy.address:
        return DaskTaskRunner(address=policy.address)
    local = {"n_workers": policy.workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=local)


def _ray(policy: ScoringPolicy) -> TaskRunner[Any]:
    from prefect_ray import RayTaskRunner

    if policy.address:
        return RayTaskRunner(address=policy.address)
    local = {"num_cpus": policy.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return RayTaskRunner(init_kwargs=local)
