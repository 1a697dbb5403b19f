"""The state after a night, without clocks, run ids and numbers that count rows: two nights can be compared by it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.review_schema import AuditEntry, Decision
from pipeline.data.catalogue.schema import Base, FindingRow
from pipeline.data.store.pixel_store import PixelStore
from pipeline.tracking.logged_runs import list_logged_runs

State = dict[str, list[str]]

# A run of its own for every attempt, its clock, or a lot: none of it is the result of a night.
VARYING = frozenset(
    {"id", "run_id", "summary", "tie", "place", "chain_hash", "object_uid", "attempts", "modified_ns", "ended_at"}
)
_NOTHING = {"studies": 0.0, "flagged": 0.0, "not_scored": 0.0}  # a run with nothing new to score
AROUND = 40  # characters that a difference shows before it
NOT_COMPARED = frozenset({"nights", "beats", "alembic_version"})


def read_state(settings: Settings, outbox: Path) -> State:
    """Return sorted lines per part: catalogue tables, pixels, heatmaps, MLflow runs, chains, objects that were sent.

    Args:
        settings: settings of the workspace.
        outbox: folder of the objects.

    Raises:
        CatalogueError: the catalogue or a pixel object cannot be read.
    """
    with Catalogue.open(settings) as catalogue:
        state = _read_tables(catalogue) | {"chains": _check_chains(settings, catalogue)}
    store = PixelStore(settings.store)
    keys = sorted(store.keys())
    for key in keys:
        store.verify(key)
    maps = sorted(settings.runs.glob("*/heatmaps/*.npz"))
    return state | {
        "pixels": keys,
        "heatmaps": [f"{file.stem} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}" for file in maps],
        "mlflow": sorted(_line(run) for run in map(_logged, list_logged_runs(settings)) if run["metrics"] != _NOTHING),
        "outbox": _read_outbox(outbox),
    }


def _read_tables(catalogue: Catalogue) -> State:
    state: State = {}
    with catalogue.reading() as session:
        findings = {row.id: f"{row.study_id[:12]}/{row.route}" for row in session.scalars(select(FindingRow))}
        for name, table in Base.metadata.tables.items():
            if name in NOT_COMPARED:
                continue
            rows = (dict(row._mapping) for row in session.execute(select(table)))
            state[name] = sorted(_line(_comparable(row, findings)) for row in rows if _lasts(name, row))
    return state


def _lasts(name: str, row: Mapping[str, Any]) -> bool:
    """Whether a row belongs to the result: a run that was stopped, or had nothing to do, is only history."""
    if name == "runs" and row["kind"] == "score":
        return row["state"] == "running" or bool((row["summary"] or {}).get("studies"))
    return True


def _comparable(row: dict[str, Any], findings: Mapping[int, str]) -> dict[str, Any]:
    if "finding_id" in row:
        row["finding_id"] = findings[row["finding_id"]]
    return {name: value for name, value in row.items() if name not in VARYING and not name.endswith("_at")}


def _line(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in sorted(values.items()))


def _logged(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run of MLflow under its kind: the name of a scoring run is its id, and that of drift its date."""
    kind = re.sub(r"[\d-].*", "", run["name"])
    return run | {"name": kind, "metrics": {k: v for k, v in run["metrics"].items() if "seconds" not in k}}


def _check_chains(settings: Settings, catalogue: Catalogue) -> list[str]:
    chain = Chain.open(settings, catalogue)
    with catalogue.reading() as session:
        verdicts = [chain.verify(session, table) for table in (PromotionRow, AuditEntry, Decision)]
    return [f"{one.rows} rows {' '.join(one.problems)}".strip() for one in verdicts]


def _read_outbox(folder: Path) -> list[str]:
    import pydicom

    files = sorted(folder.glob("*.dcm")) if folder.exists() else []
    objects = (pydicom.dcmread(file, stop_before_pixels=True) for file in files)
    return sorted(f"{ds.Modality} of {ds.StudyInstanceUID}" for ds in objects)


def compare(expected: State, actual: State) -> list[str]:
    """Return one sentence for each part that differs; empty if the states are the same."""
    parts = sorted(expected.keys() | actual.keys())
    return [sentence for part in parts for sentence in _difference(part, expected.get(part, []), actual.get(part, []))]


def _difference(part: str, expected: Sequence[str], actual: Sequence[str]) -> Iterable[str]:
    missing, surplus = Counter(expected) - Counter(actual), Counter(actual) - Counter(expected)
    if missing or surplus:
        counts = f"{part}: {missing.total()} missing, {surplus.total()} too many"
        lines = [next(iter(lines), "nothing") for lines in (missing, surplus)]
        begin = max(len(os.path.commonprefix(lines)) - AROUND, 0)
        parts = [("..." if begin else "") + line[begin : begin + 4 * AROUND] for line in lines]
        yield f"{counts}, such as {parts[0]} instead of {parts[1]}" if surplus else f"{counts}, such as {parts[0]}"
