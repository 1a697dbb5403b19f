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
from pipeline.stages.run.budget import list_cuts
from pipeline.stages.run.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.detection.flag import FlaggingConfig
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
    yield from (("Training", cut) for cut in list_cuts(folder))
    if config.detection is not None:
        yield "Flagged", _describe_rule(config.detection.flagging)


def _describe_rule(flagging: FlaggingConfig) -> str:
    if flagging.rule == "fpr":
        return f"by a threshold for a false-positive rate of {flagging.alpha:g}"
    if flagging.rule == "capacity":
        return f"the {flagging.capacity} most unusual studies of a run"
    method = {"bh": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}[flagging.method]
    return f"at a false-discovery rate of {flagging.q:g} over a run ({method})"


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
    """Return an evaluation: its charts as SVG by name, and its tables."""
    from pipeline.evaluation.chart_data import ChartData
    from pipeline.evaluation.headline import headline_sentence
    from pipeline.evaluation.report import EvaluationReport
    from pipeline.evaluation.report_page import CAPTIONS, page_tables

    values, charts = (_read(folder, f"evaluation/{name}/{file}.json") for file in ("report", "charts"))
    if values is None:
        return None
    try:
        report = EvaluationReport.model_validate(values)
        drawn = {} if charts is None else ChartData.model_validate(charts).draw(name)
    except ValidationError:  # written by another release; the file itself can still be read
        return None
    return {
        "set": name,
        "headline": headline_sentence(report),
        "guarantee": report.guarantee,
        "charts": [{"name": one, "svg": svg, "caption": CAPTIONS[one]} for one, svg in drawn.items()],
        "tables": list(page_tables(report)),
        "notes": list(report.notes),
    }


def _read(folder: RunFolder, name: str) -> Any:
    try:
        return folder.read(name)
    except ArtefactError:
        return None
