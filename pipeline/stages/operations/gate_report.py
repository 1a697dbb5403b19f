"""Report of the gates: challenger and champion on the rolling gate set, and in shadow on the last nights."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, RunRow, now
from pipeline.data.sets.selection import Selection
from pipeline.data.sets.splits import check_disjoint
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import ArtefactError, EmptySelection, PromotionRefused
from pipeline.evaluation.subgroups import GROUPINGS
from pipeline.stages.detect.calibrate import units
from pipeline.stages.detect.score_shard import study_p_values
from pipeline.stages.operations.promotion_gates import (
    CHALLENGER,
    CHAMPION,
    GateLine,
    PromotionGates,
    judge_gate_set,
    judge_shadow,
    judge_speed,
)
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress, findings, score_dataset
from pipeline.types import NORMAL_SETS, RunRef

REPORT = "gate_report.json"
WARM_UP = 8  # slices


@dataclass(frozen=True, slots=True)
class GateReport:
    """All gates of one challenger at one moment.

    Attributes:
        route, challenger, champion: route and run ids; "" for the champion of a route that has no other.
        measured_at: UTC.
        gates: the limits.
        lines: one per gate.
        data: units, patients and hash of the gate set.
        challenger_sha256, champion_sha256: of the detectors; "" for a missing champion, and in reports from before
            these fields.
    """

    route: str
    challenger: str
    champion: str
    measured_at: str
    gates: dict[str, Any]
    lines: tuple[GateLine, ...]
    data: dict[str, Any]
    challenger_sha256: str = ""
    champion_sha256: str = ""

    @property
    def passed(self) -> bool:
        """Whether every gate is passed."""
        return all(line.passed for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"passed": self.passed}

    def text(self) -> str:
        """Return the report as the JSON that is written and hashed."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True)

    @property
    def sha256(self) -> str:
        """SHA-256 of the report as it is written."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def sentences(self) -> list[str]:
        """Return a line per gate."""
        return [f"{'passed' if line.passed else 'NOT PASSED':10} {line.gate}: {line.sentence}" for line in self.lines]


def measure_gates(
    catalogue: Catalogue,
    settings: Settings,
    challenger: RunRef,
    champion: RunRef | None,
    gates: PromotionGates,
    on_progress: OnProgress | None = None,
) -> GateReport:
    """Score the gate set, and the last nights in shadow, with both detectors, and judge every gate.

    Nothing of it enters the catalogue's findings.

    Args:
        catalogue: open for as long as this takes.
        settings: the workspace.
        challenger, champion: calibrated runs of one route; None if the route has no other champion.
        gates: the limits.
        on_progress: called with (slices done, total slices).

    Raises:
        ArtefactError: a detector is missing or altered.
        EmptySelection: the gate set is empty.
        PromotionRefused: the challenger learned from patients of the gate set.
    """
    new = OpenRun.load(challenger, catalogue, settings)
    old = None if champion is None else OpenRun.load(champion, catalogue, settings)
    selection = _gate_set(new)
    refuse_learned(new, selection)
    frame, seconds, slices = _score_both(new, old, selection, on_progress)
    alpha = new.config.require_detection().flagging.alpha
    lines = list(judge_gate_set(frame, gates, new.detector.calibration, alpha, old is None))
    if old is not None:
        lines.append(judge_speed(seconds, slices, gates))
        lines += [_shadow(new, old, gates)] if gates.shadow_nights else []
    return GateReport(
        new.route,
        new.folder.run_id,
        "" if old is None else old.folder.run_id,
        f"{now().isoformat()}Z",
        gates.model_dump(mode="json"),
        tuple(lines),
        _describe(frame),
        challenger.sha256,
        "" if champion is None else champion.sha256,
    )


def read_gate_report(folder: RunFolder) -> tuple[GateReport, str]:
    """Return the report in a run's folder with the SHA-256 of its bytes; whether it passes is judged from its lines.

    Raises:
        ArtefactError: the gates were not measured, or the file is damaged.
    """
    again = f"Measure them: nightread promote {folder.run_id}"
    try:
        data = (folder.path / REPORT).read_bytes()
    except OSError:
        raise ArtefactError(f"The gates of {folder.run_id} have not been measured yet. {again}") from None
    try:
        values = {name: value for name, value in json.loads(data).items() if name != "passed"}
        report = GateReport(**{**values, "lines": tuple(GateLine(**line) for line in values["lines"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ArtefactError(f"The gate report of {folder.run_id} is damaged. {again}") from None
    return report, hashlib.sha256(data).hexdigest()


def refuse_learned(challenger: OpenRun, gate_set: Selection) -> None:
    """Refuse a run that learned from patients of the gate set: its figures there would be too good.

    The sets that it learned from are in its `data.json`, by patient set, as they were then.

    Raises:
        PromotionRefused: it did.
    """
    read: dict[str, Any] = challenger.folder.read("data.json")
    learned = sum(part.get("by_set", {}).get("gate", {}).get("patients", 0) for part in read.values())
    names = {ref.patient_id for ref in challenger.choose(sets=NORMAL_SETS).slices}
    shared = len(names & {ref.patient_id for ref in gate_set.slices})
    if learned or shared or challenger.config.data.fold is not None:
        why = "of a fold, whose sets are its own" if challenger.config.data.fold is not None else "who are in gate"
        raise PromotionRefused(
            f"{challenger.folder.run_id} learned from patients {why} ({max(learned, shared)} of them), so its figures "
            "on them would be too good. Train it without them: data.fold and captions.labelled_in must not name gate."
        )
    check_disjoint({"learned": challenger.choose(sets=NORMAL_SETS).slices, "gate": gate_set.slices})


def _gate_set(opened: OpenRun) -> Selection:
    selection = opened.choose(sets=("gate",))
    if not selection.slices:
        raise EmptySelection(
            f"The gate set of {opened.route!r} is empty, so no challenger can be compared. Label more scans: a share "
            "of their patients enters gate (data.splits)."
        )
    return selection


def _score_both(
    new: OpenRun, old: OpenRun | None, selection: Selection, on_progress: OnProgress | None
) -> tuple[pd.DataFrame, list[float], int]:
    """Return the units with both scores, the seconds of champion and challenger, and the number of slices."""
    runs = {CHALLENGER: new, **({} if old is None else {CHAMPION: old})}
    columns, seconds = [], {}
    for name, opened in runs.items():
        scores, seconds[name] = _score(opened, new, selection, on_progress)
        columns.append(scores.to_frame(name))
    frame = _units(selection, new.config.unit).join(pd.concat(columns, axis=1), how="inner").dropna()
    if frame.empty:
        raise ArtefactError("No unit of the gate set has scores of both detectors. Check `nightread rejections`.")
    return frame.reset_index(), [seconds.get(CHAMPION, 0.0), seconds[CHALLENGER]], len(selection.slices)


def _score(
    opened: OpenRun, asking: OpenRun, selection: Selection, on_progress: OnProgress | None
) -> tuple[pd.Series, float]:
    """Return the score of each unit of `asking` by a run's detector, and the seconds of scoring."""
    data = opened.dataset(selection, cache="disk")  # filled now, so that only scoring is timed
    few = replace(selection, slices=selection.slices[:WARM_UP])
    score_dataset(opened.detector, opened.dataset(few, cache="disk"))  # the first pass of any model is a slow one
    begin = time.perf_counter()
    scores, _ = score_dataset(opened.detector, data, on_progress=on_progress)
    seconds = time.perf_counter() - begin
    scored = units(opened.detector, scores, asking.config)
    return pd.Series({unit.unit_id: unit.score for unit in scored}, dtype=float), seconds


def _units(selection: Selection, unit: str) -> pd.DataFrame:
    """Return label, patient and groupings of every unit; a study is abnormal if one of its slices is."""
    rows: dict[str, dict[str, Any]] = {}
    for ref in selection.slices:
        attributes = InstanceAttributes.from_json(ref.attributes)
        name = ref.slice_id if unit == "slice" else ref.study_id
        row = {"patient_id": ref.patient_id, "label": ref.label, **{one: getattr(attributes, one) for one in GROUPINGS}}
        if ref.label == "abnormal" or name not in rows:
            rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unit_id")


def _shadow(new: OpenRun, old: OpenRun, gates: PromotionGates) -> GateLine:
    """Score the studies of the last nights with the challenger, and compare what either would flag."""
    champion = {row.study_id: row for row in _last_nights(new.catalogue, old.ref.sha256, gates.shadow_nights)}
    if not champion:
        return judge_shadow(pd.DataFrame({CHAMPION: [], CHALLENGER: []}), 0, gates)
    chosen = new.choose(study_ids=set(champion))
    scores, _ = score_dataset(new.detector, new.dataset(chosen, cache="none"))
    config = new.config.model_copy(update={"unit": "study"})
    scored = {unit.unit_id: unit.score for unit in units(new.detector, scores, config)}
    alpha, calibration = new.config.require_detection().flagging.alpha, new.detector.calibration
    p_values = (
        {} if calibration is None else dict(zip(scored, calibration.p_values(list(scored.values())), strict=True))
    )
    if calibration is not None and calibration.groups:  # as a night would flag them
        ranked = study_p_values(findings(new.detector, scores)[0], new.detector, config, chosen.slices)
        p_values = {one.study_id: one.p_value for one in ranked}
    rows = [
        {CHAMPION: bool((champion[study].p_value or 1.0) <= alpha), CHALLENGER: bool(p_values.get(study, 1.0) <= alpha)}
        for study in sorted(scored)
    ]
    return judge_shadow(pd.DataFrame(rows, columns=[CHAMPION, CHALLENGER]), len(champion) - len(rows), gates)


def _last_nights(catalogue: Catalogue, model_sha256: str, nights: int) -> list[FindingRow]:
    """Return a detector's findings of the last days on which it scored something."""
    query = (
        select(FindingRow)
        .join(RunRow, RunRow.run_id == FindingRow.run_id)
        .where(RunRow.kind == "score", FindingRow.model_sha256 == model_sha256)
        .order_by(FindingRow.scored_at.desc())
    )
    with catalogue.reading() as session:
        rows = list(session.scalars(query))
    days = sorted({row.scored_at.date() for row in rows}, reverse=True)[:nights]
    return [row for row in rows if row.scored_at.date() in days]


def _describe(frame: pd.DataFrame) -> dict[str, Any]:
    """Return counts of the gate set, and a hash over units, labels and scores."""
    text = frame.sort_values("unit_id").to_csv(index=False)
    counts = frame.groupby("label")["patient_id"].nunique().to_dict()
    return {
        "units": len(frame),
        "patients": int(frame["patient_id"].nunique()),
        "patients_by_label": {str(name): int(np.int64(count)) for name, count in counts.items()},
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
