"""Stage `pull`: fetch studies from a PACS into the inbox, as if they had been sent; nothing is requested twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.dicom.network.address import Address
from pipeline.dicom.network.config import PullConfig
from pipeline.dicom.network.contexts import STORAGE_CLASSES
from pipeline.dicom.network.inbox import Inbox
from pipeline.dicom.network.pace import Pace, Window
from pipeline.dicom.network.patience import retry_patiently
from pipeline.dicom.network.pulled import Pulled
from pipeline.dicom.network.query import FoundObject, FoundSeries, Query, Source
from pipeline.dicom.network.query_retrieve import QueryRetrieve
from pipeline.dicom.network.retrieved_objects import Intake
from pipeline.dicom.network.web import Credential, WebService
from pipeline.dicom.network.web_retrieve import WebRetrieve
from pipeline.errors import CatalogueError, ConfigError, SendError


@dataclass(slots=True)
class PullReport:
    """Result of one pull; `notes` explains what was not fetched, by the study's pseudonym in the inbox."""

    source: str
    studies: int = 0
    series: int = 0
    fetched_before: int = 0
    not_images: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    vanished: int = 0
    failed: int = 0
    stopped: str = ""
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def pull(
    config: PullConfig,
    credential: Credential | None = None,
    *,
    on_progress: Callable[[int, int | None], None] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> PullReport:
    """Fetch objects that are in the PACS but not in the inbox, and hand over every complete study.

    If it is killed, run it again to continue. A study that fails does not stop the others; a PACS that cannot be
    reached after several attempts, or a full disk, ends the pull.

    Args:
        config: source, filters, speed and hours.
        credential: credential of a DICOMweb service.
        on_progress: called with (studies done, total studies).
        now: the clock, with a time zone.

    Raises:
        ConfigError: the source is not valid. CatalogueError: the inbox cannot be used, or its disk is full.
        SendError: the PACS does not answer the query.
    """
    with ExitStack() as stack:
        inbox = stack.enter_context(Inbox.open(config.inbox, "pull"))
        pace = Pace(config.bytes_per_second, config.pause_seconds)
        intake = Intake(inbox, config.limits, config.reserve_bytes, pace)
        source = require_source(config, intake, credential)
        stack.callback(source.close)
        report = PullReport(source.name)
        puller = _Puller(config, source, intake, report, now)
        puller.run(on_progress)
        report.objects, report.bytes = dict(sorted(intake.counts.items())), intake.bytes
        if intake.full:
            raise CatalogueError(
                f"The disk of the inbox is full, or less than {config.reserve_bytes} bytes would remain free. Fetched "
                "objects are "
                "kept. Free some space, and run the pull again to continue."
            )
        return report


def require_source(config: PullConfig, intake: Intake, credential: Credential | None) -> Source:
    """Return the source: a DICOMweb service if it is a URL, else an application entity.

    Raises:
        ConfigError: it is neither, or it cannot use the given credential.
    """
    if config.source.startswith(("http://", "https://")):
        return WebRetrieve(WebService.parse(config.source, credential, config.tls), intake)
    address = Address.parse(config.source, config.ae_title, config.tls)
    if address is None:
        raise ConfigError(
            f"{config.source!r} is not a PACS address. Give AETITLE@host:port, or the URL of a DICOMweb service."
        )
    if credential is not None:
        raise ConfigError(
            f"{config.source!r} is not a DICOMweb service, so it cannot use a credential. Leave it out, and use TLS "
            "(--tls-cert) instead."
        )
    return QueryRetrieve(address, config, intake)


class _Puller:
    """One pull with its state."""

    def __init__(
        self, config: PullConfig, source: Source, intake: Intake, report: PullReport, now: Callable[[], datetime]
    ) -> None:
        self._config, self._source, self._intake, self._report, self._now = config, source, intake, report, now
        self._inbox, self._pulled = intake.inbox, Pulled.open(intake.inbox)
        self._query = Query.of(config, now())
        self._window = None if config.window is None else Window.parse(config.window, config.timezone)
        self._guard, self._stop = threading.Lock(), threading.Event()

    def run(self, on_progress: Callable[[int, int | None], None] | None) -> None:
        """Fetch all studies, as many at the same time as associations are allowed."""
        if not self._may_ask():
            return
        studies = retry_patiently(lambda: self._source.studies(self._query))
        with ThreadPoolExecutor(self._config.associations) as pool:
            for done, taken in enumerate(pool.map(self._study, studies), start=1):
                self._report.studies += taken
                if on_progress:
                    on_progress(done, len(studies))

    def _study(self, study_uid: str) -> bool:
        """Fetch the missing objects of a study; return False if it was not processed."""
        if self._stop.is_set():
            return False
        try:
            series_list = retry_patiently(lambda: self._source.series(study_uid, self._query))
            if not series_list:
                return False  # of other modalities, or removed since the query
            whole = all([self._series(series) for series in series_list])
        except SendError as error:
            self._say(study_uid, str(error), failed=1)
            if error.passing:
                self._end("The PACS cannot be reached.")
            return True
        if whole:
            self._inbox.finish(study_uid)
        return True

    def _series(self, series: FoundSeries) -> bool:
        """Fetch the missing objects of a series; return True if it is complete afterwards."""
        if self._stop.is_set() or not self._may_ask():
            return False
        self._add(series=1)
        if self._pulled.knows(series):
            self._add(fetched_before=1)
            return True
        objects = retry_patiently(lambda: self._source.objects(series))
        images = [item for item in objects if not item.sop_class or item.sop_class in STORAGE_CLASSES]
        self._add(not_images=len(objects) - len(images))
        missing = [item for item in images if not self._inbox.has(item.uid, series.study_uid)]
        if missing:
            retry_patiently(lambda: self._fetch(series, missing, whole=len(missing) == len(objects)))
            self._intake.pace.rest()
            missing = self._still(series, missing)
        return self._settle(series, len(objects), [item.uid for item in images], len(missing))

    def _fetch(self, series: FoundSeries, missing: list[FoundObject], whole: bool) -> None:
        try:
            self._source.fetch(series, missing, whole)
        except SendError:  # the PACS reports objects that we refused as failures, and retrying would not help
            if not self._intake.full and self._still(series, missing):
                raise

    def _still(self, series: FoundSeries, missing: list[FoundObject]) -> list[FoundObject]:
        """Return what neither arrived, by this pull or at the listener, nor was refused."""
        refused, has, study = self._intake.refused, self._inbox.has, series.study_uid
        return [item for item in missing if item.uid not in refused and not has(item.uid, study)]

    def _settle(self, series: FoundSeries, there: int, images: list[str], missing: int) -> bool:
        refused = sorted({self._intake.refused[uid] for uid in images if uid in self._intake.refused})
        for value, reason in refused:
            self._say(series.study_uid, f"objects were refused ({value:#06x}: {reason}).")
        if self._intake.full:
            self._end("The disk is full.")
            return False
        if there and not missing:
            self._pulled.note(series, there)
            return True
        if not there or not retry_patiently(lambda: self._source.objects(series)):
            self._say(series.study_uid, "a series was removed from the PACS before it was fetched.", vanished=1)
        else:
            self._say(
                series.study_uid,
                f"the PACS did not send {missing} of {len(images)} objects. Run the pull again.",
                failed=1,
            )
        return False

    def _may_ask(self) -> bool:
        """Wait for the allowed hours; return False to stop instead."""
        if self._window is None or self._window.is_open(self._now()):
            return True
        if self._config.stop_after_window:
            self._end(f"Outside {self._config.window} ({self._config.timezone}).")
            return False
        self._window.wait(self._now)
        return True

    def _end(self, why: str) -> None:
        self._stop.set()
        self._report.stopped = self._report.stopped or why

    def _add(self, **counts: int) -> None:
        with self._guard:
            for name, count in counts.items():
                setattr(self._report, name, getattr(self._report, name) + count)

    def _say(self, study_uid: str, sentence: str, **counts: int) -> None:
        self._add(**counts)
        with self._guard:
            self._report.notes.append(f"Study {self._inbox.pseudonym('study', study_uid)[:12]}: {sentence}")
