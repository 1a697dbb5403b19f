"""Flow `benchmark`: methods x scores x seeds on one route, in parallel. `python -m flows.benchmark FILE [WORKERS]`

Each model is trained in a process of its own, so its CPU seconds are its own, and a crash does not affect the others.
The threads of the task runner only wait for those processes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from flows import WORKSPACE
from flows.names import benchmark_name
from flows.outcome import settled
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.benchmark.final_tables import finish
from pipeline.stages.benchmark.run import note_crash, prepare


# No Prefect timeout: in a thread it could not interrupt the wait. `training.max_seconds` limits each model.
@task(name="benchmark-model", **{**STEADY, "retries": 0})
def run_model(file: str, method: str, seed: int, workspace: str) -> str:
    """Compute the cells of one (method, seed) in a process of its own; failures are recorded in its cells."""
    with keep_discreet():
        began = time.monotonic()
        print(f"benchmark: {method}, seed {seed}: started", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pipeline.stages.benchmark.run", file, method, str(seed), workspace]
        process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if process.returncode:
            note_crash(Benchmark.read(file), method, seed, process.returncode, Settings.load(workspace))
        took = f"{(time.monotonic() - began) / 60:.1f} min"
        print(f"benchmark: {method}, seed {seed}: done after {took}", file=sys.stderr, flush=True)
        return f"{method}.{seed}"


@task(name="benchmark-end", timeout_seconds=12 * HOUR, **{**STEADY, "retries": 0})
def end(file: str, workspace: str, command: str, open_test: str | None) -> dict[str, Any]:
    """Write the leaderboard; given a purpose, evaluate the frozen choice on test."""
    with keep_discreet():
        return finish(Benchmark.read(file), Settings.load(workspace), command, open_test).to_json()


@flow(name="benchmark", flow_run_name=benchmark_name, **QUIET)
def benchmark(file: str, workspace: str, command: str, open_test: str | None = None) -> dict[str, Any]:
    """Compute every unfinished cell, then write the table; finished cells are never computed again."""
    requested, states = Benchmark.read(file), []
    requested.check_purpose(open_test)
    for wave in requested.waves(prepare(requested, Settings.load(workspace))):
        waiting = [run_model.submit(file, method, seed, workspace) for method, seed in wave]
        states += [future.wait() or future.state for future in waiting]
    _, failures = settled(states)
    report = end(file, workspace, command, open_test)
    create_markdown_artifact(key="benchmark", markdown=report["markdown"], description="Leaderboard")
    return report | {"failures": {**report["failures"], **{f"model {n}": text for n, text in enumerate(failures)}}}


def run_benchmark(file: str, workspace: str, command: str, open_test: str | None, workers: int) -> dict[str, Any]:
    """Run the benchmark, `workers` models at a time, for callers that do not use Prefect."""
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return benchmark.with_options(task_runner=runner)(file, workspace, command, open_test)


if __name__ == "__main__":
    file = sys.argv[1]
    print(run_benchmark(file, str(WORKSPACE), f"nightread benchmark {file}", None, int((sys.argv[2:] or ["1"])[0])))
