"""Everything behind one finding: detector, models, training patients, configuration, code, threshold, decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import or_, select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import standing
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.removed_pixels import find_removal_of
from pipeline.data.catalogue.review_schema import Decision
from pipeline.data.catalogue.schema import ExportRow, FindingRow, RunRow
from pipeline.detection.conformal import Calibration
from pipeline.detection.detector_file import DetectorFile, read_detector
from pipeline.detection.mondrian import describe_groups
from pipeline.errors import ArtefactError, TooFewNormals
from pipeline.sealed_folder import MANIFEST, WEIGHTS, Sealed, read_object
from pipeline.stages.audit.flag_models import FORGOTTEN
from pipeline.stages.run.learned_patients import fingerprint_patients, list_runs_behind, read_patients_of
from pipeline.stages.run.run_folder import RunFolder


def read_audit_trail(catalogue: Catalogue, settings: Settings, row: FindingRow) -> dict[str, Any]:
    """Return JSON of what led to a finding and what became of it; pseudonyms only.

    Every model is read byte by byte and compared with its SHA-256: what cannot be read, or is not what the finding
    names, is a sentence in `problems`, and does not hide the rest.

    Args:
        catalogue: where the finding is.
        settings: the workspace.
        row: the finding.
    """
    run, problems, trainings = catalogue.run(row.run_id), [], {one.run_id: one for one in catalogue.list_runs("train")}
    folder = RunFolder(settings.absolute(run.folder))
    try:
        detector: DetectorFile | None = read_detector(folder.detector, row.model_sha256)
        models = [_describe_model(one, settings) for one in detector.read_models()] if detector else []
    except ArtefactError as error:
        detector, models = None, []
        problems.append(str(error))
    return {
        "finding": _describe_finding(row),
        "retention": _describe_retention(catalogue, row),
        "scored_by": _describe_run(run),
        "detector": {"sha256": row.model_sha256, **({} if detector is None else _describe_detector(detector))},
        "models": models,
        "training": [_describe_training(one, trainings.get(one.run_id)) for one in list_runs_behind(folder)],
        "threshold": {} if detector is None else _describe_threshold(detector),
        "decisions": list_decisions_of(catalogue, row.id),
        "promotions": list_promotions(catalogue, row.model_sha256),
        "sent": _list_exports(catalogue, row.id),
        "commands": {"again": f"nightread reproduce {row.id}", "trail": f"nightread audit show {row.id} --json"},
        "problems": problems,
    }


def _describe_retention(catalogue: Catalogue, row: FindingRow) -> dict[str, Any]:
    """Return the days on which the patient's data was asked to be erased, was erased, and came in again, and that on
    which retention removed the pixels that the finding rests on.
    """
    with catalogue.reading() as session:
        erasure, removed = session.get(Erasure, row.patient_id), find_removal_of(session, row)
    moments = ("requested", "finished", "readmitted")
    days = {name: None if erasure is None else getattr(erasure, f"{name}_at") for name in moments}
    erased = {f"erasure_{name}_on": None if day is None else f"{day:%Y-%m-%d}" for name, day in days.items()}
    return {**erased, "pixels_removed_on": removed}


def _describe_finding(row: FindingRow) -> dict[str, Any]:
    names = ("id", "study_id", "patient_id", "route", "score", "p_value", "n_calibration", "guarantee", "flagged")
    values = {name: getattr(row, name) for name in (*names, "rule")}
    return {**values, "slices": len(row.evidence), "scored_at": f"{row.scored_at.isoformat()}Z"}


def _describe_run(run: RunRow) -> dict[str, Any]:
    summary = dict(run.summary)
    environment = summary.pop("environment", None) or "not recorded"
    return {"run": run.run_id, "state": run.state, "started_at": f"{run.started_at.isoformat()}Z",
            "statement": summary.get("statement", ""), "exported_sha256": summary.get("exported", ""),
            "environment": environment}  # fmt: skip


def _describe_model(model: Sealed, settings: Settings) -> dict[str, Any]:
    """Return a model's SHA-256, that of its weights, its method, and the versions that wrote it."""
    hashes = read_object(model.folder / MANIFEST)["sha256"]
    method = model.spec.get("method", {})
    return {
        "sha256": model.sha256,
        "weights_sha256": hashes[WEIGHTS],
        "method": method.get("config", {}).get("name", "") if isinstance(method, Mapping) else "",
        "folder": settings.relative(model.folder.resolve()),
        "written_by": model.spec.get("versions", {}),
        "components": [_describe_model(one, settings) for one in model.components.values()],
    }


def _describe_detector(detector: DetectorFile) -> dict[str, Any]:
    return {"written_by": detector.spec.get("versions", {}), "seed": detector.spec.get("seed")}


def _describe_training(folder: RunFolder, row: RunRow | None) -> dict[str, Any]:
    """Return what one run learned from, by which code, and how many of its patients were erased since."""
    data, patients = _read(folder, "data.json"), read_patients_of(folder)
    counts = {name: value for name, value in data.items() if isinstance(value, Mapping)}
    return {
        "run": folder.run_id,
        "config": _read(folder, "config.json"),
        "config_sha256": _fingerprint_config(folder),
        "environment": _read(folder, "environment.json") or "not recorded",
        "patients": {name: fingerprint_patients(ids) for name, ids in patients.items()},
        "slices": {name: {"slices": one.get("slices"), "sha256": one.get("sha256")} for name, one in counts.items()},
        "mlflow_run": folder.read_tracked().get("run_id", ""),
        "ended": "" if row is None else row.state,
        "erased_patients": 0 if row is None else len(row.summary.get(FORGOTTEN, {})),
    }


def _fingerprint_config(folder: RunFolder) -> str:
    try:
        return folder.read_config().fingerprint()
    except ArtefactError:
        return ""


def _describe_threshold(detector: DetectorFile) -> dict[str, Any]:
    """Return the flagging rule, its threshold where there is one, and the calibration set behind it."""
    flagging = (detector.spec.get("detection") or {}).get("flagging", {})
    stored = detector.spec.get("calibration")
    if stored is None:
        return {"flagging": flagging, "calibration": None}
    calibration = Calibration.model_validate(stored)
    facts = {"n": calibration.n, "patients": calibration.patients, "guarantee": calibration.guarantee}
    alpha = float(flagging.get("alpha", 0.05))
    values: dict[str, Any] = {"flagging": flagging, "calibration": facts, "groups": describe_groups(calibration, alpha)}
    try:
        threshold = calibration.threshold(alpha)
    except TooFewNormals as refusal:
        return values | {"threshold": None, "refusal": str(refusal)}
    return values | {"threshold": {"value": threshold.value, "alpha": threshold.alpha, "interval": threshold.interval}}


def list_decisions_of(catalogue: Catalogue, finding_id: int) -> list[dict[str, Any]]:
    """Return the decisions on a finding, oldest first, without their free text, which may name a patient."""
    query = select(Decision).where(Decision.finding_id == finding_id).order_by(Decision.number)
    with catalogue.reading() as session:
        rows = list(session.scalars(query))
    in_effect = {row.id for row in standing(rows)}
    names = ("id", "number", "outcome", "reader", "code", "meaning", "blind", "score", "p_value", "chain_hash")
    return [
        {name: getattr(row, name) for name in names}
        | {"decided_at": f"{row.decided_at.isoformat()}Z", "in_effect": row.id in in_effect}
        for row in rows
    ]


def list_promotions(catalogue: Catalogue, detector_sha256: str) -> list[dict[str, Any]]:
    """Return the records of the moves that put a detector to work or replaced it, oldest first."""
    of_it = or_(PromotionRow.detector_sha256 == detector_sha256, PromotionRow.replaced_sha256 == detector_sha256)
    names = [column.key for column in PromotionRow.__table__.columns if column.key != "at"]
    with catalogue.reading() as session:
        rows = session.scalars(select(PromotionRow).where(of_it).order_by(PromotionRow.id))
        return [{"at": f"{row.at.isoformat()}Z", **{name: getattr(row, name) for name in names}} for row in rows]


def _list_exports(catalogue: Catalogue, finding_id: int) -> list[dict[str, Any]]:
    query = select(ExportRow).where(ExportRow.finding_id == finding_id).order_by(ExportRow.id)
    names = ("kind", "object_uid", "destination", "state")
    with catalogue.reading() as session:
        return [{name: getattr(row, name) for name in names} for row in session.scalars(query)]


def _read(folder: RunFolder, name: str) -> dict[str, Any]:
    try:
        return dict(folder.read(name))
    except (ArtefactError, TypeError, ValueError):
        return {}


def write_trail(trail: Mapping[str, Any]) -> Iterator[str]:
    """Yield the trail as lines for a terminal; its JSON has more."""
    finding, detector, threshold = trail["finding"], trail["detector"], trail["threshold"]
    p_value = "" if finding["p_value"] is None else f", p = {finding['p_value']:.4g}"
    p_value += f" ({finding['guarantee']})" if p_value and finding["guarantee"] else ""
    flag = "flagged" if finding["flagged"] else "not flagged"
    yield f"Finding {finding['id']}: study {finding['study_id'][:12]} on {finding['route']}"
    yield f"  score {finding['score']:.9g}{p_value}, {flag} ({finding['rule'] or 'no rule'}), {finding['scored_at']}"
    yield from (f"  {one}" for one in write_retention(trail))
    yield f"Detector {detector['sha256']}"
    for model in trail["models"]:
        weights = f"weights {model['weights_sha256'][:16]}…"
        yield f"  model {model['sha256']} ({model['method']}), {weights}, {model['folder']}"
    yield from _write_trainings(trail["training"])
    yield from _write_threshold(threshold)
    yield f"Scored by {trail['scored_by']['run']}, {_write_environment(trail['scored_by']['environment'])}"
    for one in trail["promotions"]:
        yield f"Promotion {one['id']}: {one['action']} of {one['run']} by {one['who']}, {one['at']}"
    for one in trail["decisions"]:
        withdrawn = "" if one["in_effect"] else ", not in effect"
        yield f"Decision {one['number']}: {one['outcome']} by {one['reader']}, {one['decided_at']}{withdrawn}"
    if not trail["decisions"]:
        yield "No decision yet."
    yield from (f"Sent: {one['kind']} to {one['destination']}, {one['state']}" for one in trail["sent"])
    yield from (f"PROBLEM: {problem}" for problem in trail["problems"])


def write_retention(trail: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on the patient's own data, and on models that learned from patients who were erased since."""
    days = trail["retention"]
    if days["erasure_requested_on"]:
        unfinished = "" if days["erasure_finished_on"] else ", which is not finished: run nightread forget again"
        yield f"the patient's data was erased on {days['erasure_requested_on']}{unfinished}"
    if days["pixels_removed_on"]:
        yield f"the scan's pixels were removed by retention on {days['pixels_removed_on']}"
    if days["erasure_readmitted_on"]:
        yield f"the patient's scans were taken in again on {days['erasure_readmitted_on']}"
    for one in trail["training"]:
        if count := one["erased_patients"]:
            yield f"{one['run']} learned from {count} patients who were erased since, and cannot unlearn"


def _write_trainings(trainings: list[dict[str, Any]]) -> Iterator[str]:
    for one in trainings:
        code = _write_environment(one["environment"])
        yield f"Training {one['run']}, configuration {one['config_sha256'][:16]}…, {code}"
        for name, patients in one["patients"].items():
            yield f"  {name}: {patients['patients']} patients, SHA-256 {patients['sha256']}"
        if not one["patients"]:
            yield "  its patients were not recorded"


def _write_environment(environment: Any) -> str:
    if not isinstance(environment, Mapping):
        return "code and versions not recorded"
    names = ("nightread", "torch", "python", "processor")
    versions = ", ".join(f"{name} {environment[name]}" for name in names if environment.get(name))
    dirty = " with local changes" if environment.get("git.dirty") == "true" else ""
    return f"{versions}, commit {str(environment.get('git.commit', ''))[:12]}{dirty}"


def _write_threshold(threshold: Mapping[str, Any]) -> Iterator[str]:
    calibration = threshold.get("calibration")
    if not calibration:
        yield "Not calibrated."
        return
    value = threshold.get("threshold")
    limit = f"threshold {value['value']:.6g} at alpha {value['alpha']:g}, " if value else ""
    units = f"{calibration['n']} units of {calibration['patients']} patients"
    yield f"Calibration: {limit}{units}, {calibration['guarantee']}"
    for one in threshold["groups"]:
        own = f"{one['threshold']:.6g}" if one["own"] else "the pooled one"
        yield f"  {one['group']}: threshold {own}, {one['n']} units"
