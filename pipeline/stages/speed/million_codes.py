"""Cost of an index of many codes: time to build it, memory, milliseconds of a query, and recall against exact search.

The codes are synthetic: 2 000 kinds, each a Gaussian around its own centre, with standard deviations that fall along 64
turned axes as those of images' features do. They are drawn piece by piece and never held in memory together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.retrieval.change_index import Batch, update_index
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.stored_index import open_index
from pipeline.retrieval.vector_index import VectorIndex, recall

WIDTH, KINDS, PIECE = 64, 2000, 50_000
QUERIES, NEIGHBOURS = 200, 10
QUERY_SEED = 2**31 - 1
ENCODER = {"kind": "synthetic codes", "width": WIDTH}
STATUS = Path("/proc/self/status")
MIB = 1024  # kibibytes


@lru_cache(maxsize=1)
def _mixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres [K, D], standard deviations [D] and the rotation [D, D] of the codes."""
    rng = np.random.default_rng(7)
    spread = 1 / (1 + np.arange(WIDTH) / 8)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    return rng.normal(size=(KINDS, WIDTH)) * spread * 1.5, spread, turn


def draw_codes(count: int, seed: int) -> np.ndarray:
    """Draw codes float32 [count, 64]; the same seed gives the same codes."""
    centres, spread, turn = _mixture()
    rng = np.random.default_rng([seed, 11])
    own = centres[rng.integers(KINDS, size=count)] + rng.normal(size=(count, WIDTH)) * spread
    return (own @ turn).astype(np.float32)


def stream_codes(count: int) -> Iterator[Batch]:
    """Yield addresses and codes piece by piece."""
    for first in range(0, count, PIECE):
        size = min(PIECE, count - first)
        yield [f"{number:064x}/0" for number in range(first, first + size)], draw_codes(size, first)


def measure_codes(count: int, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Build an index of each kind over the same codes, and query it; each in processes of their own.

    Returns:
        one row per kind; memory in MiB: the peak of the building process, and what an open index adds to a process
        beyond the vectors, which are mapped from the disk.

    Raises:
        ConfigError: the system does not report the memory of a process (only Linux does), or a process failed.
    """
    if not STATUS.exists():
        raise ConfigError(f"Memory is read from {STATUS}, which this system does not have. Measure on Linux.")
    rows = []
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="nightread-codes-") as place:
            built = _run("build", place, kind, str(count))
            asked = _run("ask", place, kind, str(count))
            disk = sum(file.stat().st_size for file in Path(place).iterdir()) / 2**20
            rows.append({"kind": kind, "codes": count, **built, **asked, "disk_mib": round(disk)})
    return rows


def _run(step: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipeline.stages.speed.million_codes", step, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"The step {step} ended with code {done.returncode}: {done.stderr[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def build(folder: Path, config: IndexConfig, count: int) -> dict[str, Any]:
    """Build an index of synthetic codes; return its seconds and the peak memory of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    update_index(folder, ENCODER, config, new=stream_codes(count))
    return {
        "build_s": round(time.perf_counter() - wall, 1),
        "build_cpu_s": round(time.process_time() - cpu, 1),
        "build_peak_mib": round(_memory("VmHWM") / MIB),
    }


def ask(folder: Path) -> dict[str, Any]:
    """Open the index, query it one by one, and compare with exact search."""
    import faiss  # noqa: F401  # its own memory is not the index's

    before = _memory("RssAnon")
    index = open_index(folder, ENCODER)
    queries = draw_codes(QUERIES, QUERY_SEED)
    index.search(queries[:1], NEIGHBOURS)
    memory = (_memory("RssAnon") - before) / MIB
    truth = index.search(queries, NEIGHBOURS, exact=True)[1]
    wall, cpu, answers = _time(index, queries)
    alone = replace(index, config=index.config.model_copy(update={"rerank": 0}))
    return {
        "bytes_per_code": index.searched_bytes(),
        "memory_mib": round(memory),
        "query_p50_ms": round(float(np.median(wall)), 2),
        "query_p95_ms": round(float(np.quantile(wall, 0.95)), 2),
        "query_cpu_p50_ms": round(float(np.median(cpu)), 2),
        "query_cpu_p95_ms": round(float(np.quantile(cpu, 0.95)), 2),
        "recall_at_10": round(float(recall(truth, answers).mean()), 3),
        "recall_of_codes": round(float(recall(truth, _time(alone, queries)[2]).mean()), 3),
    }


def _time(index: VectorIndex, queries: np.ndarray) -> tuple[list[float], list[float], list[np.ndarray]]:
    """Return wall and CPU milliseconds and the rows of each query, asked alone."""
    wall, cpu, answers = [], [], []
    for query in queries:
        start, busy = time.perf_counter(), time.process_time()
        answers.append(index.search(query[None], NEIGHBOURS)[1][0])
        cpu.append(1000 * (time.process_time() - busy))
        wall.append(1000 * (time.perf_counter() - start))
    return wall, cpu, answers


def _memory(field: str) -> int:
    """Return a field of the process's status, in KiB."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0])


def main(step: str, folder: str, kind: str, count: str) -> None:
    """Do one step of `measure_codes`, and print its row as JSON."""
    config = IndexConfig.model_validate({"kind": kind})
    print(json.dumps(build(Path(folder), config, int(count)) if step == "build" else ask(Path(folder))))


if __name__ == "__main__":
    main(*sys.argv[1:])
