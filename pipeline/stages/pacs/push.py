"""Stage `push`: the flagged findings of a scoring run go back into their studies, under the real identity."""

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
from pipeline.dicom.export.described import KINDS, Described, ObjectKind
from pipeline.dicom.export.key_objects import key_objects
from pipeline.dicom.export.segmentation import left_out, segmentation
from pipeline.dicom.export.structured_report import structured_report
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.network.send import Destination, Folder, send_with_patience
from pipeline.errors import EmptySelection, Rejected, SendError
from pipeline.stages.pacs.push_evidence import Evidence, Pusher


@dataclass(slots=True)
class PushReport:
    """What one push did; `notes` says in sentences what was left out and why, by the study's pseudonym."""

    run_id: str
    destination: str
    findings: int = 0
    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    known: int = 0
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
    """Make the objects of every flagged finding and send those that the destination does not have from us yet.

    A study whose original file is gone is left out, and said. A destination that cannot be reached after some patience
    ends the push; run it again, and it goes on.

    Args:
        run_id: a scoring run.
        settings: the workspace.
        target: where to.
        kinds: which objects.
        again: send also what was sent before; the objects are the same, byte for byte.
        pixel_alpha: share of normal pixels above the outline's threshold; default the one that an evaluation chose.
        on_progress: called with (findings done, findings in all).

    Raises:
        CatalogueError: there is no such run. EmptySelection: it flagged nothing.
        ArtefactError: its detector is missing or altered.
    """
    with ExitStack() as stack:
        catalogue = stack.enter_context(Catalogue.open(settings))
        crosswalk = stack.enter_context(Crosswalk.open(settings))
        pusher = stack.enter_context(Pusher.of(run_id, settings, catalogue, crosswalk, pixel_alpha))
        found = catalogue.findings(run_id, flagged=True)
        if not found:
            raise EmptySelection(f"The run {run_id} flagged no study: there is nothing to send.")
        report = PushReport(run_id, target.name)
        forget = again or isinstance(target, Folder)  # a file is quickly made again, and quickly deleted
        states = {} if forget else export_states(catalogue, target.name)
        delivery = _Delivery(catalogue, target, report, states)
        for done, finding in enumerate(found, start=1):
            if not _push_one(finding, pusher, kinds, delivery):
                break
            report.findings = done
            if on_progress:
                on_progress(done, len(found))
        return report


def _push_one(finding: FindingRow, pusher: Pusher, kinds: Sequence[ObjectKind], delivery: _Delivery) -> bool:
    """Send the objects of one finding; False where going on makes no sense."""
    described = pusher.describe(finding)
    if delivery.has_all({kind: described.uid(kind) for kind in kinds}):
        delivery.report.known += 1
        return True
    try:
        with pusher.evidence(finding) as evidence:
            going = all(delivery.deliver(finding, kind, ds) for kind, ds in _objects(described, evidence, kinds))
            delivery.report.notes += evidence.notes
            return going
    except Rejected as rejected:
        delivery.report.notes.append(f"Study {finding.study_id[:12]}: {rejected.sentence}")
        delivery.report.failed += 1
        return True


def _objects(found: Described, evidence: Evidence, kinds: Sequence[ObjectKind]) -> Iterator[tuple[ObjectKind, Dataset]]:
    """Make the objects one after another; those that others refer to come first."""
    made: list[Dataset] = []
    for kind in KINDS:
        with quietly():  # highdicom warns of unusual names by quoting them
            ds = _make(kind, found, evidence, made) if kind in kinds else None
        if ds is not None:
            made.append(ds)
            yield kind, ds


def _make(kind: ObjectKind, found: Described, evidence: Evidence, made: Sequence[Dataset]) -> Dataset | None:
    if kind == "seg":
        return _outline(found, evidence)
    if kind == "sc":
        return None if evidence.picture is None else secondary_capture(found, evidence.picture, evidence.images[0])
    if kind == "sr":
        return structured_report(found, evidence.images)
    return key_objects(found, evidence.images, made)


def _outline(found: Described, evidence: Evidence) -> Dataset | None:
    missing = left_out(found, evidence.images)
    try:
        ds = segmentation(found, evidence.images)
    except ValueError:  # its text quotes values
        ds, missing = None, "there is no segmentation, since the original images do not fit together."
    if missing:
        evidence.notes.append(f"Study {evidence.study}: {missing}")
    return ds


@dataclass(slots=True)
class _Delivery:
    """Where objects go, and the books about it."""

    catalogue: Catalogue
    target: Destination
    report: PushReport
    states: dict[str, str]

    def has_all(self, uids: dict[ObjectKind, str]) -> bool:
        """Whether everything of a finding was taken; not every finding has a segmentation or a picture."""
        found = {kind: self.states.get(uid) for kind, uid in uids.items()}
        wanted = [state for kind, state in found.items() if state is not None or kind in ("sr", "ko")]
        return bool(wanted) and set(wanted) == {"sent"}

    def deliver(self, finding: FindingRow, kind: ObjectKind, ds: Dataset) -> bool:
        """Send an object unless it was taken before; False where the destination cannot be reached."""
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
