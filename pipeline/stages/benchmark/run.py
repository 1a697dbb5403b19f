"""Stage `benchmark`: train, calibrate and evaluate every cell on develop, each with its own file and MLflow run.

<workspace>/benchmarks/<name>/
    benchmark.json               the request, and the MLflow parent run of the cells
    cells/<method>.<score>.<seed>.json   one finished or failed cell
    choice.json                  each method's score, frozen when test is first opened
    leaderboard.md, *.png        the table and its figures

A finished cell is never computed again, and an interrupted training resumes where it stopped. A failed cell records its
reason and is computed again by the next call. Only develop is read here; test is read at the end, for the frozen
choice.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.config import Settings, merge
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.detection.config import DetectionConfig
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.scorer import Scorer
from pipeline.errors import ConfigError, NightreadError, UnforeseenError
from pipeline.evaluation.matched import GIVEN, IN_STRATA
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.benchmark.config import Benchmark, Cell
from pipeline.stages.choose.grid_search import search_grid
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import RunRef

TIMED_SLICES, TIMED_BATCH, TIMED_SECONDS = 256, 16, 20.0  # scored again to measure images per second


def make_benchmark_folder(benchmark: Benchmark, settings: Settings) -> RunFolder:
    """Return the benchmark's folder in the workspace."""
    return RunFolder(settings.workspace / "benchmarks" / benchmark.config.name)


def prepare(benchmark: Benchmark, settings: Settings) -> list[tuple[str, int]]:
    """Create the folder and the MLflow parent run, once; return the groups with unfinished cells.

    Cells of one group, (method, seed), share a trained model and are computed in sequence; ensembles come last.
    """
    folder = make_benchmark_folder(benchmark, settings)
    if not (folder.path / "benchmark.json").exists():
        route = benchmark.route
        with track(settings, route, f"benchmark {benchmark.config.name}", system_metrics=False) as tracked:
            tracked.log_config(benchmark.config)
            folder.write("benchmark.json", {"mlflow": tracked.run_id, "route": route})
    left = [cell for cell in benchmark.cells() if read_finished(benchmark, cell, settings) is None]
    groups = list(dict.fromkeys((cell.method.name, cell.seed) for cell in left))
    return [group for wave in benchmark.waves(groups) for group in wave]


def read_finished(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any] | None:
    """Return a cell's result if it is done for the current configuration and data; None if it must be computed.

    Raises:
        ConfigError: the cell's configuration is not valid.
    """
    try:
        key = _cache_key(benchmark, cell, settings)
    except NightreadError:
        return None  # computing it will report the reason
    result = read_result(benchmark, cell, settings)
    return result if result and result["state"] == "done" and result["key"] == key else None


def read_result(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any] | None:
    """Return the stored result of a cell, done or failed; None if it was never computed."""
    folder, name = make_benchmark_folder(benchmark, settings), f"cells/{cell.key}.json"
    if not (folder.path / name).exists():
        return None
    result = folder.read(name)
    if "run" in result:
        result["run"]["path"] = str(settings.absolute(result["run"]["path"]))
    return result


def run_group(benchmark: Benchmark, method: str, seed: int, settings: Settings) -> list[dict[str, Any]]:
    """Compute the unfinished cells of one trained model; a failing one records its reason and does not stop
    the others.
    """
    return [
        read_finished(benchmark, cell, settings) or _attempt(benchmark, cell, settings)
        for cell in benchmark.cells()
        if (cell.method.name, cell.seed) == (method, seed)
    ]


def _cache_key(benchmark: Benchmark, cell: Cell, settings: Settings) -> str:
    """Return the SHA-256 of a cell's inputs: configuration, score, grid and develop set."""
    config = _config(benchmark, cell, settings)
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
    tried = cell.score.grid and GridConfig().model_dump(mode="json")
    facts = [config.fingerprint(), tried, benchmark.config.criterion, fingerprint(develop.slices)["sha256"]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _attempt(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any]:
    try:
        result = {**_identity(cell), "state": "done", **_computed(benchmark, cell, settings)}
        result["key"] = _cache_key(benchmark, cell, settings)
    except NightreadError as error:
        result = failed(cell, str(error))
    except Exception as error:  # a broken method fails its own cell, never the table
        result = failed(cell, str(UnforeseenError.of(error)))
    _keep(benchmark, cell, result, settings)
    return result


def failed(cell: Cell, reason: str) -> dict[str, Any]:
    """Return the result of a cell that could not be computed."""
    return {**_identity(cell), "state": "failed", "reason": reason}


def _identity(cell: Cell) -> dict[str, Any]:
    return {"method": cell.method.name, "score": cell.score.name, "seed": cell.seed}


def _computed(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any]:
    config = _config(benchmark, cell, settings)
    run = train(config if cell.method.members else _trunk(benchmark, cell), settings, purpose="rank")
    detection = config.require_detection()
    if not cell.method.members:  # an ensemble's score is determined by its members
        if cell.score.grid:
            detection = search_grid(run, settings, criterion=benchmark.config.criterion).best
        run = rescore(run, detection, settings)
    report = calibrate(run, settings, to_registry=False)
    measured = evaluate(report.run, settings)
    return {
        "run": {"path": report.run.path, "sha256": report.run.sha256},
        "detection": detection.model_dump(mode="json"),
        **_facts(report.run, settings),
        "develop": figures_of(measured),
    }


def _config(benchmark: Benchmark, cell: Cell, settings: Settings) -> RunConfig:
    """Return the configuration of a cell's run, for an ensemble including the runs of its members.

    In a grid cell, an ensemble reads series in the same way as its members, whatever the grid chose for them.
    """
    results = [_member(benchmark, member, settings) for member in benchmark.members(cell)]
    runs = [RunRef(**result["run"]) for result in results]
    members = [{"run": RunFolder.open(run).run_id, "sha256": run.sha256} for run in runs]
    if not (results and cell.score.grid):
        return benchmark.run_config(cell, members)
    residuals = [DetectionConfig.model_validate(result["detection"]).residual for result in results]
    weight = max(residual.adjacent or float(residual.whole) for residual in residuals)
    read = merge(cell.score.detection, {"residual": {"adjacent": weight}})
    return benchmark.run_config(replace(cell, score=cell.score.model_copy(update={"detection": read})), members)


def _member(benchmark: Benchmark, member: Cell, settings: Settings) -> dict[str, Any]:
    result = read_result(benchmark, member, settings)
    if result is None or result["state"] != "done":
        raise ConfigError(
            f"The member {member.method.name} has no finished cell under the score {member.score.name} with seed "
            f"{member.seed}. Compute it first."
        )
    return result


def _trunk(benchmark: Benchmark, cell: Cell) -> RunConfig:
    """Return the training configuration of the cell's model, which is that of its method's first score."""
    same = [other for other in benchmark.cells() if (other.method.name, other.seed) == (cell.method.name, cell.seed)]
    return benchmark.run_config(same[0])


def figures_of(report: EvaluationReport) -> dict[str, Any]:
    """Return a report's metrics by short names, as used by criteria and tables."""
    metrics: dict[str, Any] = {}
    for table in report.tables:
        row = next(row for row in table.rows if not row.control)
        if table.level == "pixel level":
            names = {"pixel_ap": "AP", "dice": "Dice", "oracle_dice": "best Dice (oracle)"}
        else:
            central = "auroc_central" if table.title.startswith("central") else "auroc"
            names = {central: "AUROC"} | {name: name for name in row.metrics if name.startswith((IN_STRATA, GIVEN))}
        metrics |= {k: row.metrics[v].model_dump(mode="json") for k, v in names.items() if v in row.metrics}
    return metrics


def _facts(run: RunRef, settings: Settings) -> dict[str, Any]:
    """Return the costs of the method: parameters, CPU seconds of training, passes, slices scored per CPU second."""
    with Catalogue.open(settings) as catalogue:
        opened = OpenRun.load(run, catalogue, settings)
        detector, summary = opened.detector, catalogue.run(opened.folder.run_id).summary
        scored, seconds = _timed(detector, opened.dataset(opened.choose(sets=("develop",)), cache="disk"))
    return {
        "supervision": ", ".join(sorted({method.supervision for method in detector.methods})),
        "parameters": sum(p.numel() for method in detector.methods for p in method.parameters()),
        "passes": _passes(detector),
        "training_seconds": summary.get("process_seconds"),
        "stage_seconds": summary.get("stage_seconds", []),
        "training_images": summary.get("images_seen"),
        "cut_short": summary.get("cut_short", ""),
        "images_per_second": scored / seconds if seconds > 0 else None,
    }


def _passes(detector: Scorer) -> int | None:
    """Return the forward passes per slice, over all models; None where they depend on the image."""
    passes = [method.passes for method in detector.methods]
    return None if None in passes else sum(one for one in passes if one is not None)


def _timed(detector: Scorer, data: SliceDataset) -> tuple[int, float]:
    """Score some slices; return their number and the CPU seconds."""
    began, scored = time.process_time(), 0
    for _ in detector.score_slices(data, min(TIMED_BATCH, detector.config.batch_size)):
        scored += 1
        if scored % TIMED_BATCH == 0 and (scored >= TIMED_SLICES or time.process_time() - began > TIMED_SECONDS):
            break
    return scored, time.process_time() - began


def _keep(benchmark: Benchmark, cell: Cell, result: dict[str, Any], settings: Settings) -> None:
    """Write the cell's file, which `read_result` reads, and its MLflow run below the benchmark's."""
    if "run" in result:
        result = {**result, "run": {**result["run"], "path": settings.relative(result["run"]["path"])}}
    folder = make_benchmark_folder(benchmark, settings)
    above = folder.read("benchmark.json")
    with track(settings, above["route"], cell.key, parent=above["mlflow"], system_metrics=False) as tracked:
        tracked.log_tags({"state": result["state"], "method": cell.method.name, "score": cell.score.name})
        tracked.log_metrics({f"develop/{k}": v["value"] for k, v in result.get("develop", {}).items()})
        numbers = {k: result.get(k) for k in ("parameters", "training_seconds", "images_per_second")}
        tracked.log_metrics({k: v for k, v in numbers.items() if v is not None} | {"seed": cell.seed})
        tracked.log_text(json.dumps(result, indent=2), "cell.json")
    folder.write(f"cells/{cell.key}.json", result)


def note_crash(benchmark: Benchmark, method: str, seed: int, code: int, settings: Settings) -> None:
    """Record in the cells of one model that their process ended with `code` (negative: a signal) without a result."""
    reason = f"The process that computed it ended with exit code {code} without a message."
    for cell in benchmark.cells():
        ours = (cell.method.name, cell.seed) == (method, seed)
        if ours and read_finished(benchmark, cell, settings) is None:
            _keep(benchmark, cell, failed(cell, reason), settings)


def main(arguments: Sequence[str]) -> None:
    """Compute one model's cells: FILE METHOD SEED WORKSPACE."""
    file, method, seed, workspace = arguments
    run_group(Benchmark.read(file), method, int(seed), Settings.load(workspace))


if __name__ == "__main__":
    main(sys.argv[1:])
