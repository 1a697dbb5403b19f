"""Stage `push`: send the flagged findings of a scoring run back into their studies, under the real identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from pydicom import Dataset

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.exports import export_states, note_export
from pipeline.data.catalogue.schema import FindingRow
from pipeline.dicom.decode.source import quietly
from pipeline.dicom.export.capture import secondary_capture
from pipeline.dicom.export.described import KINDS, Described, ObjectKind, SourceImage
from pipeline.dicom.export.key_objects import key_objects
from pipeline.dicom.export.one_grid import left_out
from pipeline.dicom.export.parametric_map import parametric_map
from pipeline.dicom.export.segmentation import segmentation
from pipeline.dicom.export.structured_report import structured_report
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.network.send import Destination, Folder, send_with_patience
from pipeline.errors import EmptySelection, Rejected, SendError
from pipeline.stages.pacs.push_evidence import Evidence, Pusher


@dataclass(slots=True)
class PushReport:
    """Result of one push; `notes` explains what was left out, by the study's pseudonym."""

    run_id: str
    destination: str
    findings: int = 0
    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    sent_before: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def push(
    run_id: str,
    settings: Settings,
    target: Destination,
    *,
    kinds: Sequence[ObjectKind] = KINDS,
    again: bool = False,
    pixel_alpha: float | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> PushReport:
    """Create the objects of every flagged finding, and send those that were not sent to this destination yet.

    A study whose original files are missing is left out and noted. A destination that cannot be reached after several
    attempts ends the push; run it again to continue.

    Args:
        run_id: a scoring run.
        settings: the workspace.
        target: the destination.
        kinds: kinds of objects to send.
        again: also send objects that were sent before; they are identical byte for byte.
        pixel_alpha: share of normal pixels above the outline's threshold; default the one chosen by an evaluation.
        on_progress: called with (findings done, total findings).

    Raises:
        CatalogueError: the run does not exist. EmptySelection: it flagged nothing.
        ArtefactError: its detector is missing or altered.
    """
    with ExitStack() as stack:
        catalogue = stack.enter_context(Catalogue.open(settings))
        crosswalk = stack.enter_context(Crosswalk.open(settings))
        pusher = stack.enter_context(Pusher.open(run_id, settings, catalogue, crosswalk, pixel_alpha))
        findings = catalogue.list_findings(run_id, flagged=True)
        if not findings:
            raise EmptySelection(
                f"The run {run_id} flagged no study, so there is nothing to send. See nightread flagged --all."
            )
        report = PushReport(run_id, target.name)
        forget = again or isinstance(target, Folder)  # files are cheap to write again, and may have been deleted
        states = {} if forget else export_states(catalogue, target.name)
        delivery = _Delivery(catalogue, target, report, states)
        for done, finding in enumerate(findings, start=1):
            if not _push_one(finding, pusher, kinds, delivery):
                break
            report.findings = done
            if on_progress:
                on_progress(done, len(findings))
        return report


def _push_one(finding: FindingRow, pusher: Pusher, kinds: Sequence[ObjectKind], delivery: _Delivery) -> bool:
    """Send the objects of one finding; return False if the push should stop."""
    described = pusher.describe(finding)
    if delivery.has_all({kind: described.uid(kind) for kind in kinds}):
        delivery.report.sent_before += 1
        return True
    try:
        with pusher.read_evidence(finding) as evidence:
            going = all(delivery.deliver(finding, kind, ds) for kind, ds in _objects(described, evidence, kinds))
            delivery.report.notes += evidence.notes
            return going
    except Rejected as rejected:
        delivery.report.notes.append(f"Study {finding.study_id[:12]}: {rejected.sentence}")
        delivery.report.failed += 1
        return True


def _objects(
    described: Described, evidence: Evidence, kinds: Sequence[ObjectKind]
) -> Iterator[tuple[ObjectKind, Dataset]]:
    """Create the objects one after another; those that others refer to come first."""
    created: list[Dataset] = []
    outline = _on_geometry(segmentation, described, evidence)  # the report measures it, sent or not
    if missing := left_out(evidence.images):
        evidence.notes.append(f"Study {evidence.study}: {missing}")
    for kind in KINDS:
        with quietly():  # highdicom's warnings about unusual names would quote them
            ds = _make(kind, described, evidence, outline, created) if kind in kinds else None
        if ds is not None:
            created.append(ds)
            yield kind, ds


def _make(
    kind: ObjectKind, described: Described, evidence: Evidence, outline: Dataset | None, created: Sequence[Dataset]
) -> Dataset | None:
    if kind == "seg":
        return outline
    if kind == "pm":
        return _on_geometry(parametric_map, described, evidence)
    if kind == "sc":
        return None if evidence.picture is None else secondary_capture(described, evidence.picture, evidence.images[0])
    if kind == "sr":
        return structured_report(described, evidence.images, outline)
    return key_objects(described, evidence.images, created)


def _on_geometry(
    make: Callable[[Described, Sequence[SourceImage]], Dataset | None], described: Described, evidence: Evidence
) -> Dataset | None:
    """Make a segmentation or a map; None, with a note, where highdicom refuses the originals' geometry."""
    try:
        with quietly():
            return make(described, evidence.images)
    except ValueError:  # do not repeat its text, which quotes values
        name = make.__name__.replace("_", " ")
        sentence = f"there is no {name}, since the geometry of the original images is inconsistent."
        evidence.notes.append(f"Study {evidence.study}: {sentence}")
        return None


@dataclass(slots=True)
class _Delivery:
    """Delivery of objects to a destination, recorded in the catalogue."""

    catalogue: Catalogue
    target: Destination
    report: PushReport
    states: dict[str, str]

    def has_all(self, uids: dict[ObjectKind, str]) -> bool:
        """Return whether all objects of a finding were sent; only report and key objects always exist."""
        states = {kind: self.states.get(uid) for kind, uid in uids.items()}
        relevant = [state for kind, state in states.items() if state is not None or kind in ("sr", "ko")]
        return bool(relevant) and set(relevant) == {"sent"}

    def deliver(self, finding: FindingRow, kind: ObjectKind, ds: Dataset) -> bool:
        """Send an object unless it was sent before; return False if the destination cannot be reached."""
        uid, name = str(ds.SOPInstanceUID), self.target.name
        if self.states.get(uid) == "sent":
            return True
        note_export(self.catalogue, finding, kind, uid, name, "pending")
        try:
            attempts = send_with_patience(self.target, ds)
        except SendError as error:
            note_export(self.catalogue, finding, kind, uid, name, "failed", 1, str(error))
            self.report.notes.append(f"Study {finding.study_id[:12]}, {kind}: {error}")
            self.report.failed += 1
            return not error.passing
        note_export(self.catalogue, finding, kind, uid, name, "sent", attempts)
        self.report.sent[kind] += 1
        return True
