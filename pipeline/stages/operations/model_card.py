"""Model card: training data, evaluation beside the controls, and limits of use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import RunRow
from pipeline.errors import ArtefactError
from pipeline.stages.run.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.evaluation.results import ResultTable
    from pipeline.stages.run.run_config import RunConfig

SETS = ("test", "develop")
LIMITS = (
    "Research software: not a medical device, not validated on patients, not for diagnosis.",
    "It measures how unusual a scan is compared with the calibration normals, not what is wrong or how urgent it is.",
    "An unflagged scan is not proven to be normal: the model does not flag what it does not see.",
    "The false-alarm rate is valid for scans like the calibration normals: other scanners, protocols and patients "
    "may cause more. The page of the night shows whether scores drift.",
)


def list_scored_models(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return every detector that has scored or was evaluated, most recently used first."""
    query = select(RunRow).where(RunRow.sha256 != "").order_by(RunRow.started_at.desc())
    cards: dict[str, dict[str, Any]] = {}
    with catalogue.reading() as session:
        for run in session.scalars(query):
            card = cards.setdefault(
                run.sha256,
                {"sha256": run.sha256, "route": run.route, "name": Path(run.folder).name, "last": run.started_at},
            )
            card["runs"] = card.get("runs", 0) + (run.kind == "score")
    return list(cards.values())


def read_model_card(catalogue: Catalogue, settings: Settings, sha256: str) -> dict[str, Any] | None:
    """Return the content of a detector's card, or None if no run used this detector.

    Args:
        catalogue: where the runs are.
        settings: the workspace.
        sha256: SHA-256 of the detector, or at least its first 8 digits.
    """
    query = select(RunRow).where(RunRow.sha256.startswith(sha256, autoescape=True)).order_by(RunRow.started_at.desc())
    with catalogue.reading() as session:
        run = session.scalars(query).first() if len(sha256) >= 8 else None
    if run is None:
        return None
    folder = RunFolder(settings.absolute(run.folder))
    return {
        "name": folder.run_id,
        "route": run.route,
        "sha256": run.sha256,
        "facts": list(_facts(folder)),
        "data": _data(folder),
        "calibration": _read(folder, "calibration.json"),
        "reports": [card for name in SETS if (card := _report(folder, name)) is not None],
        "limits": LIMITS,
    }


def _facts(folder: RunFolder) -> Iterator[tuple[str, str]]:
    try:
        config = folder.read_config()
    except (ArtefactError, ValidationError):
        return
    yield "Method", config.method.name
    if _is_taught(folder, config):
        yield "Learned from", "normal scans, and unlabelled ones as far as an earlier model found something in them"
    yield "Image size", f"{config.data.normaliser.image_size} pixels"
    if (volumes := config.data.volumes) is not None:
        yield "Read as", f"volumes, in cubes of {volumes.tile} voxels"
    yield "Normalisation", config.data.normaliser.kind
    if config.detection is not None:
        flagging = config.detection.flagging.model_dump()
        yield "Flagged by", ", ".join(f"{name} {value}" for name, value in flagging.items())


def _is_taught(folder: RunFolder, config: RunConfig) -> bool:
    """Return whether the run, or a member of its ensemble, learned from unlabelled scans."""
    members = [RunFolder(folder.path.parent / str(one.run)) for one in getattr(config.method, "members", ())]
    return config.unlabelled is not None or any("unlabelled" in (_read(one, "data.json") or {}) for one in members)


def _data(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        {"set": name, **{key: counts.get(key, 0) for key in ("patients", "studies", "series", "slices")}}
        for name, counts in (_read(folder, "data.json") or {}).items()
        if isinstance(counts, dict)
    ]


def _report(folder: RunFolder, name: str) -> dict[str, Any] | None:
    from pipeline.evaluation.report import EvaluationReport
    from pipeline.evaluation.subgroups import subgroup_frame

    values = _read(folder, f"evaluation/{name}/report.json")
    if values is None:
        return None
    try:
        report = EvaluationReport.model_validate(values)
    except ValidationError:  # written by another release; the file itself can still be read
        return None
    frame = subgroup_frame(report.subgroups) if report.subgroups else None
    return {
        "set": name,
        "guarantee": report.guarantee,
        "tables": [_table(table) for table in report.tables],
        "points": [point.sentence for point in report.operating_points if point.sentence],
        "outline": report.pixel_alpha.sentence if report.pixel_alpha else "",
        "subgroup_names": [] if frame is None else list(frame.columns),
        "subgroups": [] if frame is None else frame.to_numpy().tolist(),
        "notes": list(report.notes),
        "openings": [(opening.opened_at, opening.purpose) for opening in report.openings],
    }


def _table(table: ResultTable) -> dict[str, Any]:
    from pipeline.evaluation.report import verdict_lines

    metrics = list(dict.fromkeys(name for row in table.rows for name in row.metrics))
    rows = [
        {
            "name": row.name,
            "control": row.control,
            "values": [row.metrics[name].text() if name in row.metrics else "" for name in metrics],
        }
        for row in table.rows
    ]
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in table.counts.items() if count)
    return {
        "title": f"{table.level.capitalize()}: {table.title}",
        "counts": counts,
        "interval": table.interval,
        "metrics": metrics,
        "rows": rows,
        "verdicts": verdict_lines(table),
        "notes": list(table.notes),
    }


def _read(folder: RunFolder, name: str) -> Any:
    try:
        return folder.read(name)
    except ArtefactError:
        return None
