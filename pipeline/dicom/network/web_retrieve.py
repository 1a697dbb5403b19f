"""PACS queried by QIDO-RS and read by WADO-RS (PS3.18 10.6, 10.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message
from typing import Any, cast

from pydicom.datadict import tag_for_keyword

from pipeline.dicom.network.query import FoundObject, FoundSeries, Query
from pipeline.dicom.network.query_retrieve import number
from pipeline.dicom.network.retrieved_objects import Intake
from pipeline.dicom.network.web import Gone, WebService

_AS_KEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 500
_READ_SECONDS = 60.0
_Ask = Callable[[dict[str, Any]], list[dict[str, Any]]]


class WebRetrieve:
    """Source of studies at a DICOMweb service.

    Args:
        service: its URL and our credential.
        intake: receives the objects.
    """

    def __init__(self, service: WebService, intake: Intake) -> None:
        self._service, self._intake = service, intake
        self._own = threading.local()  # sessions of requests are not safe to share between threads

    @property
    def name(self) -> str:
        """URL of the service."""
        return self._service.url

    def close(self) -> None:
        """Do nothing: no port or connection is held open."""

    def studies(self, query: Query) -> list[str]:
        """Return the Study Instance UIDs that match, each once."""
        client, answers = self._client(), []
        for query_keys in query.study_keys():
            keys = {name: value for name, value in query_keys.items() if value}
            fields = ["StudyDate", "StudyDescription"]
            answers += self._paged(
                cast(Any, lambda page, keys=keys: client.search_for_studies(search_filters=keys, **page)), fields
            )
        matching = [answer for answer in answers if query.has_study(answer)]
        return list(dict.fromkeys(answer["StudyInstanceUID"] for answer in matching))

    def series(self, study_uid: str, query: Query) -> list[FoundSeries]:
        """Return the series of a study that match."""
        client, fields = self._client(), ["SeriesDescription", "NumberOfSeriesRelatedInstances"]
        try:
            answers = self._paged(lambda page: client.search_for_series(study_uid, **page), fields)
        except Gone:
            return []
        return [
            FoundSeries(study_uid, answer["SeriesInstanceUID"], number(answer["NumberOfSeriesRelatedInstances"]))
            for answer in answers
            if query.has_series(answer)
        ]

    def objects(self, series: FoundSeries) -> list[FoundObject]:
        """Return the objects of a series; empty where the series no longer exists."""
        client = self._client()
        try:
            answers = self._paged(lambda page: client.search_for_instances(series.study_uid, series.uid, **page), [])
        except Gone:
            return []
        return [FoundObject(answer["SOPInstanceUID"], answer["SOPClassUID"]) for answer in answers]

    def fetch(self, series: FoundSeries, objects: Sequence[FoundObject], whole: bool) -> None:
        """Fetch objects into the inbox one by one, in the transfer syntax in which they are stored."""
        for item in objects:
            if self._intake.full or self._intake.inbox.has(item.uid, series.study_uid):  # by an attempt that failed
                continue
            place = f"studies/{series.study_uid}/series/{series.uid}/instances/{item.uid}"
            with suppress(Gone):  # the pull notices that it is missing
                self._intake.take_file(item.uid, self._file(f"{self._service.url}/{place}"))

    def _client(self) -> Any:
        if not hasattr(self._own, "client"):
            self._own.session = self._service.open_session()
            self._own.client = self._service.open_client(self._own.session)
        return self._own.client

    def _paged(self, ask: _Ask, fields: Sequence[str]) -> list[dict[str, str]]:
        """Request pages until one brings nothing new: a service may return fewer than requested, or ignore paging."""
        results: dict[str, dict[str, str]] = {}
        while True:
            page = {"limit": _PAGE, "offset": len(results), "fields": list(fields) or None}
            with self._service.translate_errors():
                answers = [_plain(answer) for answer in ask(page)]
            new = {"/".join(a[name] for name in _UIDS): a for a in answers}
            if new.keys() <= results.keys():
                return list(results.values())
            results |= new

    def _file(self, url: str) -> bytes:
        """Return the bytes of a PS3.10 file.

        It uses requests because dicomweb-client returns only parsed data sets, but the inbox stores bytes as received.
        """
        self._client()
        with self._service.translate_errors():
            answer = self._own.session.get(url, headers={"Accept": _AS_KEPT}, timeout=_READ_SECONDS)
            answer.raise_for_status()
            return read_first_part(answer.headers.get("Content-Type", ""), answer.content)


_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_KEYWORDS = (*_UIDS, "SOPClassUID", "StudyDate", "StudyDescription", "Modality", "SeriesDescription")
_TAGS = {k: f"{tag_for_keyword(k):08X}" for k in (*_KEYWORDS, "NumberOfSeriesRelatedInstances")}


def _plain(answer: dict[str, Any]) -> dict[str, str]:
    """Return the elements of DICOM's JSON (PS3.18 F) as text, empty where they are missing."""
    values = {keyword: answer.get(tag, {}).get("Value") or [""] for keyword, tag in _TAGS.items()}
    return {keyword: str(value[0]).strip() for keyword, value in values.items()}


def read_first_part(content_type: str, body: bytes) -> bytes:
    """Return the first part of a multipart message (RFC 2046 5.1), or the body itself if it is not multipart.

    Raises:
        ValueError: the message has no such part.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_maintype() != "multipart":
        return body
    if boundary is None:
        raise ValueError("the multipart message has no boundary")
    mark = b"--" + boundary.encode("latin-1")
    start = body.index(b"\r\n\r\n", body.index(mark)) + 4
    return body[start : body.index(b"\r\n" + mark, start)]
