"""Stage `benchmark`: every cell trained, calibrated and measured on develop, each in its own file and MLflow run.

<workspace>/benchmarks/<name>/
    benchmark.json               what was asked, and the MLflow run above the cells
    cells/<method>.<score>.<seed>.json   one finished or failed cell
    choice.json                  each method's score, frozen when test is first opened
    leaderboard.md, *.png        the table and its figures

A finished cell is never computed again, and a training that was stopped goes on where it was; a failed cell says why
and is tried anew by the next call. Everything here reads develop; test is read at the end only, for what was frozen.
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
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError, NightreadError, UnforeseenError
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.benchmark.config import Benchmark, Cell
from pipeline.stages.choose.grid_search import grid
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import RunRef

TIMED_SLICES, TIMED_BATCH, TIMED_SECONDS = 256, 16, 20.0  # scored again for images a second


def folder_of(benchmark: Benchmark, settings: Settings) -> RunFolder:
    """Return the benchmark's folder in the workspace."""
    return RunFolder(settings.workspace / "benchmarks" / benchmark.config.name)


def prepare(benchmark: Benchmark, settings: Settings) -> list[tuple[str, int]]:
    """Make the folder and the MLflow run above the cells, once; return the groups that have cells left to do.

    Cells of one group, (method, seed), share a trained model and are done one after the other; ensembles come last.
    """
    folder = folder_of(benchmark, settings)
    if not (folder.path / "benchmark.json").exists():
        route = benchmark.route
        with track(settings, route, f"benchmark {benchmark.config.name}", system_metrics=False) as tracked:
            tracked.config(benchmark.config)
            folder.write("benchmark.json", {"mlflow": tracked.run_id, "route": route})
    left = [cell for cell in benchmark.cells() if finished(benchmark, cell, settings) is None]
    groups = list(dict.fromkeys((cell.method.name, cell.seed) for cell in left))
    return [group for wave in benchmark.waves(groups) for group in wave]


def finished(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any] | None:
    """Return a cell's result where it is done under today's configuration and data; None where it has to be computed.

    Raises:
        ConfigError: the cell's configuration does not fit.
    """
    try:
        question = _question(benchmark, cell, settings)
    except NightreadError:
        return None  # computing it will say why it cannot be
    result = result_of(benchmark, cell, settings)
    return result if result and result["state"] == "done" and result["question"] == question else None


def result_of(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any] | None:
    """Return what is known of a cell, done or failed; None where it was never tried."""
    folder, name = folder_of(benchmark, settings), f"cells/{cell.key}.json"
    if not (folder.path / name).exists():
        return None
    result = folder.read(name)
    if "run" in result:
        result["run"]["path"] = str(settings.absolute(result["run"]["path"]))
    return result


def run_group(benchmark: Benchmark, method: str, seed: int, settings: Settings) -> list[dict[str, Any]]:
    """Compute the cells of one trained model that are not done; one that fails says why and stops no other."""
    return [
        finished(benchmark, cell, settings) or _attempt(benchmark, cell, settings)
        for cell in benchmark.cells()
        if (cell.method.name, cell.seed) == (method, seed)
    ]


def _question(benchmark: Benchmark, cell: Cell, settings: Settings) -> str:
    """SHA-256 of what a cell's answer depends on: configuration, score, what a grid tries, and the develop set."""
    config = _config(benchmark, cell, settings)
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
    tried = cell.score.grid and GridConfig().model_dump(mode="json")
    facts = [config.fingerprint(), tried, benchmark.config.criterion, fingerprint(develop.slices)["sha256"]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _attempt(benchmark: Benchmark, cell: Cell, settings: Settings) -> dict[str, Any]:
    try:
        result = {**_identity(cell), "state": "done", **_computed(benchmark, cell, settings)}
        result["question"] = _question(benchmark, cell, settings)
    except NightreadError as error:
        result = failed(cell, str(error))
    except Exception as error:  # a broken method costs its own cell, never the table
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
    run = train(config if cell.method.members else _trunk(benchmark, cell), settings)
    detection = config.require_detection()
    if not cell.method.members:  # an ensemble's score is fixed by its members
        if cell.score.grid:
            detection = grid(run, settings, criterion=benchmark.config.criterion).best
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
    """Return the configuration of a cell's run, an ensemble's with the runs of its members.

    Of a grid cell an ensemble reads series as its members do, whatever the grid has chosen for them.
    """
    found = [_member(benchmark, member, settings) for member in benchmark.members(cell)]
    runs = [RunRef(**result["run"]) for result in found]
    members = [{"run": RunFolder.behind(run).run_id, "sha256": run.sha256} for run in runs]
    if not (found and cell.score.grid):
        return benchmark.run_config(cell, members)
    weight = max(DetectionConfig.model_validate(result["detection"]).residual.adjacent for result in found)
    read = merge(cell.score.detection, {"residual": {"adjacent": weight}})
    return benchmark.run_config(replace(cell, score=cell.score.model_copy(update={"detection": read})), members)


def _member(benchmark: Benchmark, member: Cell, settings: Settings) -> dict[str, Any]:
    result = result_of(benchmark, member, settings)
    if result is None or result["state"] != "done":
        raise ConfigError(
            f"The member {member.method.name} has no finished cell under the score {member.score.name} with seed "
            f"{member.seed}."
        )
    return result


def _trunk(benchmark: Benchmark, cell: Cell) -> RunConfig:
    """Return the configuration that the cell's model is trained with: that of its method's first score."""
    same = [other for other in benchmark.cells() if (other.method.name, other.seed) == (cell.method.name, cell.seed)]
    return benchmark.run_config(same[0])


def figures_of(report: EvaluationReport) -> dict[str, Any]:
    """Return a report's figures by short names: what criteria and tables ask for; absent where it has none."""
    found: dict[str, Any] = {}
    for table in report.tables:
        row = next(row for row in table.rows if not row.control)
        if table.level == "pixel level":
            names = {"pixel_ap": "AP", "dice": "Dice", "oracle_dice": "best Dice (oracle)"}
        else:
            names = {"auroc_central" if table.title.startswith("central") else "auroc": "AUROC"}
        found |= {k: row.metrics[v].model_dump(mode="json") for k, v in names.items() if v in row.metrics}
    return found


def _facts(run: RunRef, settings: Settings) -> dict[str, Any]:
    """Return what the method costs: parameters, CPU seconds of training, slices scored a CPU second."""
    folder = RunFolder.behind(run)
    detector, config = load_detector(folder.detector, sha256=run.sha256), folder.config()
    with Catalogue.open(settings) as catalogue:
        summary = catalogue.run(folder.run_id).summary
        develop = choose(catalogue, config, settings, sets=("develop",))
    scored, seconds = _timed(detector, dataset(develop, config, settings, cache="disk"))
    return {
        "supervision": ", ".join(sorted({method.supervision for method in detector.methods})),
        "parameters": sum(p.numel() for method in detector.methods for p in method.parameters()),
        "training_seconds": summary.get("process_seconds"),
        "stage_seconds": summary.get("stage_seconds", []),
        "training_images": summary.get("images_seen"),
        "images_per_second": scored / seconds if seconds > 0 else None,
    }


def _timed(detector: Scorer, data: SliceDataset) -> tuple[int, float]:
    """Score some slices; return how many, and the CPU seconds of this process."""
    began, scored = time.process_time(), 0
    for _ in detector.score_slices(data, min(TIMED_BATCH, detector.config.batch_size)):
        scored += 1
        if scored % TIMED_BATCH == 0 and (scored >= TIMED_SLICES or time.process_time() - began > TIMED_SECONDS):
            break
    return scored, time.process_time() - began


def _keep(benchmark: Benchmark, cell: Cell, result: dict[str, Any], settings: Settings) -> None:
    """Write the cell's file and its MLflow run beneath the benchmark's; `result_of` reads it."""
    if "run" in result:
        result = {**result, "run": {**result["run"], "path": settings.relative(result["run"]["path"])}}
    folder = folder_of(benchmark, settings)
    above = folder.read("benchmark.json")
    with track(settings, above["route"], cell.key, parent=above["mlflow"], system_metrics=False) as tracked:
        tracked.tags({"state": result["state"], "method": cell.method.name, "score": cell.score.name})
        tracked.metrics({f"develop/{k}": v["value"] for k, v in result.get("develop", {}).items()})
        numbers = {k: result.get(k) for k in ("parameters", "training_seconds", "images_per_second")}
        tracked.metrics({k: v for k, v in numbers.items() if v is not None} | {"seed": cell.seed})
        tracked.text(json.dumps(result, indent=2), "cell.json")
    folder.write(f"cells/{cell.key}.json", result)


def note_crash(benchmark: Benchmark, method: str, seed: int, code: int, settings: Settings) -> None:
    """Note in the cells of one model that their process ended with `code` (negative: a signal) and left no result."""
    reason = f"The process that computed it ended with code {code} and said nothing."
    for cell in benchmark.cells():
        ours = (cell.method.name, cell.seed) == (method, seed)
        if ours and finished(benchmark, cell, settings) is None:
            _keep(benchmark, cell, failed(cell, reason), settings)


def main(arguments: Sequence[str]) -> None:
    """Compute one model's cells: FILE METHOD SEED WORKSPACE."""
    file, method, seed, workspace = arguments
    run_group(Benchmark.read(file), method, int(seed), Settings.load(workspace))


if __name__ == "__main__":
    main(sys.argv[1:])
