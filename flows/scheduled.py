"""Flows of the schedules beside the night: retraining, benchmarks, generative tasks, indices and retention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prefect import flow, task

from flows.benchmark import benchmark
from flows.generate import generate
from flows.names import name_schedule, read_due_time
from flows.night_log import log_failures, log_text, progress_into_log
from flows.outcome import ended, settled
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from flows.request import read_request
from pipeline.config import Settings, load_config
from pipeline.stages.audit.retention import retain
from pipeline.stages.audit.retention_policy import read_retention_policy
from pipeline.stages.operations.promotion import read_gates
from pipeline.stages.operations.retraining import retrain
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.watch.nights import record_night


def _run_each(request: str, workspace: str, files: Iterable[str], run: Callable[[str], Any]) -> Any:
    """Run a flow on each file in turn, with one record for the watch; a file that fails does not stop the others."""
    with record_night(Settings.load(workspace), read_request(request).name, read_due_time()) as night:
        done, failures = settled([run(file) for file in files])
        night.failures = len(failures)
        night.summary = {"done": len(done), "errors": sorted({one.partition(":")[0][:60] for one in failures})}
    log_failures(failures)
    return ended({"done": len(done), "failures": failures})


@task(name="retrain", timeout_seconds=48 * HOUR, **STEADY)
def retrain_route(config: str, workspace: str) -> str:
    """Train a challenger from the normals that came since its champion learned, and judge it by the gates."""
    with keep_discreet(), progress_into_log():
        report = retrain(load_config(config, RunConfig), Settings.load(workspace), read_gates(), progress=True)
        log_text(report.sentence())
        return report.sentence()


@flow(name="train-scheduled", flow_run_name=name_schedule, **QUIET)
def train_scheduled(request: str, workspace: str) -> Any:
    """Retrain each configuration whose route has enough new normal patients; a person promotes."""
    files = read_request(request).configs
    return _run_each(request, workspace, files, lambda file: retrain_route(file, workspace, return_state=True))


@flow(name="benchmark-scheduled", flow_run_name=name_schedule, **QUIET)
def benchmark_scheduled(request: str, workspace: str) -> Any:
    """Run each benchmark; cells that exist are not computed again."""

    def run(file: str) -> Any:
        return benchmark(file, workspace, f"nightread benchmark {file}", return_state=True)

    return _run_each(request, workspace, read_request(request).configs, run)


@flow(name="generate-scheduled", flow_run_name=name_schedule, **QUIET)
def generate_scheduled(request: str, workspace: str) -> Any:
    """Run each generative task, such as one that refreshes an index of similar images."""
    files = read_request(request).tasks
    return _run_each(request, workspace, files, lambda file: generate(file, workspace, return_state=True))


@task(name="retain", timeout_seconds=12 * HOUR, **STEADY)
def retain_data(workspace: str) -> str:
    """Remove what the policy of the workspace no longer keeps."""
    settings = Settings.load(workspace)
    with keep_discreet():
        report = retain(settings, read_retention_policy(settings))
        log_text(report.sentences())
        return report.sentences()


@flow(name="retention-scheduled", flow_run_name=name_schedule, **QUIET)
def retention_scheduled(request: str, workspace: str) -> Any:
    """Remove what the policy no longer keeps; without a policy of the site, nothing."""
    return _run_each(request, workspace, ["policy"], lambda _: retain_data(workspace, return_state=True))
