"""Erasure of one patient, in steps that a kill cannot halve: each is safe to repeat, and a journal says what is done.

The patient's pseudonym is entered in the journal first, from which moment their files are refused. Files and pixels go
before the rows that lead to them, and the crosswalk last, because only it knows the identifiers to search for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.erase_rows import erase_rows, list_frames_of_others, list_rows_of, read_erasure
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.removed_pixels import refuse_held
from pipeline.data.catalogue.schema import Patient, now
from pipeline.data.catalogue.scrub import scrub
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.crosswalk_erasure import erase_identity, list_former_ids, list_identifiers, list_paths
from pipeline.errors import CatalogueError
from pipeline.stages.audit.erase_files import (
    erase_files,
    files_with,
    list_archives,
    list_files_of,
)
from pipeline.stages.audit.flag_models import Learned, flag_models, list_models_of
from pipeline.stages.audit.prefect_pictures import erase_prefect_pictures
from pipeline.stages.generate.retrieval.slice_index import forget_pixels

STEPS = ("files", "indices", "pixels", "models", "rows", "crosswalk", "databases", "search")
OnStep = Callable[[str], None]


@dataclass(slots=True)
class ErasureReport:
    """What an erasure removed, or would remove (`dry_run`), and what it cannot reach.

    Attributes:
        patient: the pseudonym, which stays.
        state: planned, finished, or finished before.
        erased_at: when it was requested, UTC; "" if only planned.
        counts: what was removed, by kind.
        models: training runs that learned from the patient, with their sets.
        unreachable: sentences on what is outside of this workspace's reach.
        still_named: files in which an identifier was seen afterwards, relative to the workspace; normally empty.
        source_files: paths of the files that the images came from; identifying, and printed only on request.
    """

    patient: str
    state: str
    erased_at: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    still_named: list[str] = field(default_factory=list)
    source_files: list[str] = field(default_factory=list)

    def to_json(self, reveal: bool = False) -> dict[str, Any]:
        """Return plain values; the paths of source files only with `reveal`."""
        return {name: value for name, value in asdict(self).items() if reveal or name != "source_files"}


def plan_erasure(settings: Settings, patient_id: str) -> ErasureReport:
    """Return what `forget` would do, without writing anything.

    Raises:
        CatalogueError: the patient is unknown.
    """
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        done = _read_done(catalogue, patient_id)
        if done is not None:
            return done
        record = _collect(catalogue, crosswalk, settings, patient_id)
        lists, identifiers = record["lists"], list_identifiers(crosswalk, record["lists"])
        files = list_files_of(settings, lists, identifiers, datetime.fromisoformat(record["since"]))
        counts = {name: len(paths) for name, paths in files.items()}
        counts |= {name: len(lists[name]) for name in ("studies", "series", "instances", "pixels", "findings")}
        paths, models = list_paths(crosswalk, lists), record["models"]
        unreachable = _list_unreachable(settings, lists, models, paths)
        return ErasureReport(patient_id, "planned", "", counts, models, unreachable, [], paths)


def forget(settings: Settings, patient_id: str, on_step: OnStep | None = None) -> ErasureReport:
    """Erase one patient's data everywhere in reach, or finish an erasure that was interrupted.

    Args:
        settings: the workspace.
        patient_id: the patient's pseudonym.
        on_step: called with the name of each finished step.

    Raises:
        CatalogueError: the patient is unknown, or a database cannot be rewritten, since another process reads it.
        ReviewError: the chain of decisions was altered before.
    """
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        done = _read_done(catalogue, patient_id)
        if done is not None:
            return done
        _begin(catalogue, crosswalk, settings, patient_id)
        return _Work(catalogue, crosswalk, settings, patient_id).run(on_step or (lambda _: None))


def readmit(settings: Settings, patient_id: str) -> None:
    """Take files of an erased patient in again from now on; what was erased does not come back.

    Raises:
        CatalogueError: the patient was not erased, or the erasure is unfinished.
    """
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        erasure = read_erasure(session, patient_id)
        if erasure is None or erasure.finished_at is None:
            raise CatalogueError(
                f"The patient {patient_id[:12]} was not erased, or not completely, so there is nothing to readmit. "
                "Check the pseudonym, or finish the erasure with nightread forget"
            )
        erasure.readmitted_at = now()


def list_unfinished(settings: Settings) -> list[str]:
    """Return the pseudonyms of patients whose erasure was interrupted."""
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return list(session.scalars(select(Erasure.patient_id).where(Erasure.finished_at.is_(None))))


def _read_done(catalogue: Catalogue, patient_id: str) -> ErasureReport | None:
    with catalogue.reading() as session:
        erasure = read_erasure(session, patient_id)
        if erasure is None or erasure.finished_at is None or erasure.readmitted_at is not None:
            return None
        record = erasure.record
    names = ("counts", "models", "unreachable", "still_named")
    return ErasureReport(
        patient_id, "finished before", _time(erasure.requested_at), **{name: record.get(name, []) for name in names}
    )


def _time(at: datetime) -> str:
    return f"{at.isoformat()}Z"


def _begin(catalogue: Catalogue, crosswalk: Crosswalk, settings: Settings, patient_id: str) -> None:
    """Write the journal, from which the patient is refused at ingest; one that is unfinished is left as it is."""
    with catalogue.reading() as session:
        erasure = read_erasure(session, patient_id)
        if erasure is not None and erasure.readmitted_at is None:
            return
    record = _collect(catalogue, crosswalk, settings, patient_id)
    with catalogue.session() as session:
        # Read again under the writers' lock: from here on, nothing of this patient can be added.
        record["lists"] = list_rows_of(session, patient_id)
        session.merge(Erasure(patient_id=patient_id, requested_at=now(), finished_at=None, readmitted_at=None,
                              steps=[], record={**record, "counts": {}}))  # fmt: skip


def _collect(catalogue: Catalogue, crosswalk: Crosswalk, settings: Settings, patient_id: str) -> dict[str, Any]:
    """Return what the steps need, as JSON without real identifiers."""
    with catalogue.reading() as session:
        patient = session.get(Patient, patient_id)
        if patient is None:
            raise CatalogueError(
                f"The catalogue has no patient {patient_id[:12]!r}. Give the patient's whole pseudonym, as nightread "
                "audit show FINDING --json prints it, or run nightread forget without an argument and type the Patient "
                "ID, or ID^^^ISSUER."
            )
        refuse_held(session, patient_id)
        lists, since, set_name = list_rows_of(session, patient_id), patient.first_seen_at, patient.set_name or ""
    names = {*lists["patients"], *list_former_ids(crosswalk, lists["patients"])}
    models = [one.to_json() for one in list_models_of(catalogue, settings, names, set_name)]
    return {"lists": lists, "since": since.isoformat(), "models": models}


@dataclass(slots=True)
class _Work:
    """The steps of one erasure; identifiers are in memory only."""

    catalogue: Catalogue
    crosswalk: Crosswalk
    settings: Settings
    patient_id: str

    def run(self, on_step: OnStep) -> ErasureReport:
        """Run the steps that are not recorded as done, record each, and return what was erased and what is left."""
        with self.catalogue.reading() as session:
            erasure = session.get_one(Erasure, self.patient_id)
            record, steps, requested = dict(erasure.record), list(erasure.steps), erasure.requested_at
        lists, identifiers = record["lists"], list_identifiers(self.crosswalk, record["lists"])
        paths = list_paths(self.crosswalk, lists)
        # Written down before the crosswalk goes, which is why an interrupted erasure can still say it.
        record.setdefault("unreachable", _list_unreachable(self.settings, lists, record["models"], paths))
        for name in STEPS:
            if name not in steps:
                getattr(self, f"_{name}")(record, lists, identifiers)
                steps.append(name)
                self._note(record, steps)
                on_step(name)
        self._finish(record)
        names = ("counts", "models", "unreachable", "still_named")
        values = {name: record[name] for name in names}
        return ErasureReport(self.patient_id, "finished", _time(requested), **values, source_files=paths)

    def _note(self, record: dict[str, Any], steps: list[str]) -> None:
        with self.catalogue.session() as session:
            erasure = session.get_one(Erasure, self.patient_id)
            erasure.record, erasure.steps = dict(record), list(steps)

    def _finish(self, record: dict[str, Any]) -> None:
        """Close the journal: the lists of what was removed go, counts stay."""
        with self.catalogue.session() as session:
            erasure = session.get_one(Erasure, self.patient_id)
            erasure.record = {name: value for name, value in record.items() if name not in ("lists", "since")}
            erasure.finished_at = now()
        scrub(self.catalogue.engine)  # the journal's own lists were in it

    def _files(self, record: dict[str, Any], lists: dict[str, Any], identifiers: Collection[bytes]) -> None:
        files = list_files_of(self.settings, lists, identifiers, datetime.fromisoformat(record["since"]))
        pictures, left = erase_prefect_pictures(self.settings)
        record["counts"] |= erase_files(files) | {"Prefect records": pictures}
        record["unreachable"] += left

    def _indices(self, record: dict[str, Any], lists: dict[str, Any], _: Collection[bytes]) -> None:
        record["counts"]["index entries"] = forget_pixels(self.settings, lists["pixels"])

    def _pixels(self, record: dict[str, Any], lists: dict[str, Any], _: Collection[bytes]) -> None:
        store = PixelStore(self.settings.store)
        record["counts"]["pixels"] = sum([store.delete(key) for key in lists["pixels"]])

    def _models(self, record: dict[str, Any], *_: object) -> None:
        learned = [Learned.of(one) for one in record["models"]]
        record["unreachable"] += flag_models(self.catalogue, self.settings, self.patient_id, learned)

    def _rows(self, record: dict[str, Any], lists: dict[str, Any], _: Collection[bytes]) -> None:
        record["counts"] |= erase_rows(self.catalogue, Chain.open(self.settings, self.catalogue), lists)

    def _crosswalk(self, record: dict[str, Any], lists: dict[str, Any], _: Collection[bytes]) -> None:
        with self.catalogue.reading() as session:
            shared = list_frames_of_others(session, lists["frames"], lists["series"])
        record["counts"]["identifiers"] = erase_identity(self.crosswalk, lists, shared)

    def _databases(self, record: dict[str, Any], *_: object) -> None:
        left = {scrub(self.catalogue.engine), scrub(self.crosswalk.engine)} - {""}
        record["unreachable"] += sorted(left)

    def _search(self, record: dict[str, Any], _: dict[str, Any], identifiers: Collection[bytes]) -> None:
        """Look for the identifiers in every file but those of pixels, whose format has no place for them."""
        folder = self.settings.workspace
        files = files_with(folder, identifiers, alone=False, left_out=(folder / "pixels",))
        record["still_named"] = [file.relative_to(folder).as_posix() for file in files]
        if not identifiers:  # the crosswalk was erased by an earlier call, which was interrupted
            record["unreachable"].append("the search for identifiers, which were erased before the interruption")


def _list_unreachable(
    settings: Settings, lists: dict[str, Any], models: list[dict[str, Any]], paths: list[str]
) -> list[str]:
    """Return sentences on copies that no command of this workspace can remove."""
    outside = sum(1 for path in paths if settings.absolute(path) != settings.workspace / path)
    checkpoints = sum(one["checkpoints"] for one in models)
    archives = list_archives(settings)
    sentences = {
        "the PACS: images, and objects that were sent to it": True,
        "backups of this workspace, and copies of it": True,
        "label tables and other files that the site keeps": True,
        f"{outside} source files outside of the workspace (nightread forget --dry-run --reveal lists them)": outside,
        f"{len(models)} models that learned from the patient: {', '.join(one['run'] for one in models)}": models,
        f"{checkpoints} files of training states of these models": checkpoints,
        f"{len(lists['shared'])} images or masks that another patient has as well": lists["shared"],
        f"{archives} archives in inbox or outbox, in which no search sees": archives,
        "MLflow's artefacts on its own server": settings.mlflow_server,
        "older versions in the bucket of the pixel store, if it keeps versions": "://" in settings.store,
    }
    return [sentence for sentence, applies in sentences.items() if applies]
