"""Compute a finding's score again from model, detector and stored pixels, and compare it with the recorded one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.removed_pixels import find_removal_of
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.detection.scorer import Scorer
from pipeline.errors import CatalogueError
from pipeline.stages.audit.find_finding import find_finding
from pipeline.stages.detect.score_shard import study_p_values
from pipeline.stages.run.environment import read_environment
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import findings, score_dataset
from pipeline.types import Finding, RunRef

TOLERANCE = 1e-5  # absolute up to a score of 1, relative above; float32 keeps seven digits
State = Literal["reproduced", "differs", "erased", "removed"]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The recorded score of a finding beside the one that was computed again.

    Attributes:
        finding, study, route: which finding; the study's pseudonym.
        state: "reproduced" where the two scores agree within `TOLERANCE` and rest on the same slices, "erased" where
            the patient's data was erased, "removed" where retention removed the study's pixels, else "differs".
        score, computed: the recorded raw score, and the one of now; None where it was not computed.
        p_value, p_computed: likewise; None without calibration.
        detector_sha256: of the detector, which was checked byte by byte with its models.
        changed: what differs from the machine and code of the score, by name: [then, now].
        notes: sentences on what else differs.
    """

    finding: int
    study: str
    route: str
    state: State
    score: float
    computed: float | None
    p_value: float | None
    p_computed: float | None
    detector_sha256: str
    changed: dict[str, list[Any]]
    notes: list[str]

    @property
    def agrees(self) -> bool:
        """Whether the score was reproduced."""
        return self.state == "reproduced"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        difference = None if self.computed is None else self.computed - self.score
        return asdict(self) | {"difference": difference, "tolerance": TOLERANCE}

    def lines(self) -> list[str]:
        """Return the comparison in sentences, the verdict first."""
        if self.computed is None:
            return self.notes
        verdict = "is reproduced" if self.agrees else "is NOT reproduced"
        first = (
            f"The score of finding {self.finding} ({self.route}, study {self.study[:12]}) {verdict}: recorded "
            f"{self.score:.9g}, computed {self.computed:.9g} (difference {self.computed - self.score:+.1e}, tolerance "
            f"{TOLERANCE:g})."
        )
        changes = [f"{name}: {then} when it was scored, {now} now." for name, (then, now) in self.changed.items()]
        return [first, *self.notes, *(changes or ["Code, packages and processor are those of the score."])]


def reproduce(settings: Settings, name: str) -> Reproduction:
    """Score one finding's study again with its own detector, and compare.

    Args:
        settings: the workspace, or a copy of it on another machine.
        name: of the finding, see `find_finding`.

    Raises:
        ArtefactError: the detector or a model is missing, or not the one with the recorded SHA-256.
        CatalogueError: the finding is unknown, or its pixels are missing or damaged.
    """
    with Catalogue.open(settings) as catalogue:
        row = find_finding(catalogue, name)
        if (erased := read_erased_on(catalogue, row.patient_id)) is not None:
            return _say_gone(row, "erased", f"erased on {erased}")
        with catalogue.reading() as session:
            removed = find_removal_of(session, row)
        if removed is not None:
            return _say_gone(row, "removed", f"removed by retention on {removed}")
        run = catalogue.run(row.run_id)
        folder = RunFolder(settings.absolute(run.folder))
        opened = OpenRun.load(RunRef(str(folder.path), row.model_sha256), catalogue, settings)
        return _compare(row, run, _score_again(row, opened), opened.detector)


def read_erased_on(catalogue: Catalogue, patient_id: str) -> str | None:
    """Return the day on which a patient's data was erased, as 2026-01-31; None if it was not."""
    with catalogue.reading() as session:
        erasure = session.get(Erasure, patient_id)
        return None if erasure is None else f"{erasure.requested_at:%Y-%m-%d}"


def _say_gone(row: FindingRow, state: State, gone: str) -> Reproduction:
    what = f"Finding {row.id} ({row.route}, study {row.study_id[:12]})"
    sentence = f"{what}: {gone}, so its score cannot be computed again."
    return Reproduction(
        row.id, row.study_id, row.route, state, row.score, None, row.p_value, None, row.model_sha256, {}, [sentence]
    )


def _score_again(row: FindingRow, opened: OpenRun) -> Finding:
    # Series that came later, or that a gate held, are not part of the score.
    series = {str(one.get("series_id", "")) for one in row.evidence}
    chosen = opened.choose(study_ids=[row.study_id])
    selection = replace(chosen, slices=tuple(ref for ref in chosen.slices if ref.series_id in series))
    scores, rejected = score_dataset(opened.detector, opened.dataset(selection, cache="none"))
    results, refused = findings(opened.detector, scores)
    again = study_p_values(results, opened.detector, opened.config, selection.slices)
    if not again:
        reasons = [one.sentence for one in (*selection.not_scored, *rejected)]
        reasons += [error.sentence for error in refused.values()]
        raise CatalogueError(
            f"The study {row.study_id[:12]} of finding {row.id} cannot be scored any more: "
            f"{reasons[0] if reasons else 'no slice of it is left in the catalogue'}. Restore its pixels from a backup."
        )
    return again[0]


def _compare(row: FindingRow, run: RunRow, again: Finding, detector: Scorer) -> Reproduction:
    then, now = ({_slice_of(one) for one in evidence} for evidence in (row.evidence, _evidence(again)))
    close = abs(again.score - row.score) <= TOLERANCE * max(1.0, abs(row.score))
    return Reproduction(
        finding=row.id,
        study=row.study_id,
        route=row.route,
        state="reproduced" if close and then == now else "differs",
        score=row.score,
        computed=again.score,
        p_value=row.p_value,
        p_computed=again.p_value,
        detector_sha256=row.model_sha256,
        changed=_changes(run.summary.get("environment")),
        notes=_notes(len(now - then), len(then - now), run.summary, detector),
    )


def _evidence(finding: Finding) -> list[dict[str, Any]]:
    return [asdict(one) for one in finding.evidence]


def _slice_of(evidence: Mapping[str, Any]) -> tuple[Any, Any]:
    return evidence.get("instance_id"), evidence.get("frame")


def _changes(recorded: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Return what differs between the environment of the score and this process's: by name, [then, now]."""
    present = read_environment()
    if not recorded:
        return {"environment": ["not recorded", present.get("nightread", "")]}
    names = [*recorded, *(name for name in present if name not in recorded)]
    pairs = {name: [recorded.get(name, "none"), present.get(name, "none")] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _notes(added: int, gone: int, summary: Mapping[str, Any], detector: Scorer) -> list[str]:
    exported, on_gpu = bool(summary.get("exported")), detector.config.device != "cpu"
    notes = (
        f"{added} slices arrived after the score; it was computed without them." * bool(added),
        f"{gone} slices that it rests on are gone." * bool(gone),
        "The night scored by an exported detector (onnxruntime); this is the detector itself." * exported,
        "The detector may run on a GPU, whose rounding is not a CPU's." * on_gpu,
    )
    return [note for note in notes if note]
