"""Pulling by QIDO-RS and WADO-RS, and that credentials go only where they should."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread

from pipeline.cli import group
from pipeline.dicom.network.config import PullConfig
from pipeline.dicom.network.send import Stow, require_destination
from pipeline.dicom.network.web import Credential, WebService
from pipeline.dicom.network.web_retrieve import read_first_part
from pipeline.errors import ConfigError, IdentityError, SendError
from pipeline.stages.pacs.pull import pull

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass
class Service:
    """A small DICOMweb service on the loopback: pages of five, no filters except UIDs, and failures on demand."""

    datasets: list[Dataset]
    required_header: str = ""  # the Authorization header that requests must carry
    statuses: dict[str, list[int]] = field(default_factory=dict)  # by kind of request, until none is left
    asked: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, headers: Any) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        parts, query = urlsplit(path).path.strip("/").split("/")[1:], parse_qs(urlsplit(path).query)
        self.asked.append("/".join(parts[::2]))
        self.headers.append(headers)
        if self.required_header and headers.get("Authorization") != self.required_header:
            return 401, "text/plain", b""
        if self.statuses.get(parts[-1 if len(parts) % 2 else -2]):
            return self.statuses[parts[-1 if len(parts) % 2 else -2]].pop(0), "text/plain", b""
        uids = dict(zip(UIDS, parts[1::2], strict=False))
        matches = [ds for ds in self.datasets if all(ds[k].value == v for k, v in uids.items())]
        if len(parts) == 6:
            return (200, *_file(matches[0])) if matches else (404, "text/plain", b"")
        unique = {ds[UIDS[len(uids)]].value: ds for ds in matches}
        page = [*unique.values()][int(query.get("offset", ["0"])[0]) :][:5]
        return 200, "application/dicom+json", json.dumps([_head(ds, matches) for ds in page]).encode()


def _head(ds: Dataset, all_found: list[Dataset]) -> dict[str, Any]:
    keep = Dataset()
    for keyword in (*UIDS, "SOPClassUID", "Modality", "StudyDate", "StudyDescription", "SeriesDescription"):
        if keyword in ds:
            keep[keyword] = ds[keyword]
    keep.NumberOfSeriesRelatedInstances = sum(o.SeriesInstanceUID == ds.SeriesInstanceUID for o in all_found)
    return keep.to_json_dict()


def _file(ds: Dataset) -> tuple[str, bytes]:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    head = b"\r\n--b 1\r\nContent-Type: application/dicom\r\n\r\n"
    return 'multipart/related; type="application/dicom"; boundary="b 1"', head + buffer.getvalue() + b"\r\n--b 1--\r\n"


@pytest.fixture
def service(datasets: list[Dataset]) -> Iterator[Service]:
    """Run the service."""
    running = Service([*datasets])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = running.answer(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    yield running
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pipeline.dicom.network.patience.FIRST_PAUSE_SECONDS", 0.0)


def config(service: Service, inbox: Path, **more: Any) -> PullConfig:
    return PullConfig(**{"source": service.url, "inbox": inbox, "everything": True, "reserve_bytes": 0, **more})


def test_objects_arrive_once_with_the_same_bytes_as_by_c_store(
    service: Service, listen: Callable, tmp_path: Path, datasets: list[Dataset]
) -> None:
    report = pull(config(service, tmp_path / "pulled"))
    assert (report.studies, report.objects, report.failed, report.notes) == (4, {"stored": 12}, 0, [])
    running = listen()
    assert set(running.send(*datasets)) == {0}
    sent = {dcmread(path).SOPInstanceUID: path.read_bytes() for path in running.stored()}
    stored = {dcmread(p).SOPInstanceUID: p.read_bytes() for p in (tmp_path / "pulled" / "complete").rglob("*.dcm")}
    assert stored == sent
    service.asked.clear()
    again = pull(config(service, tmp_path / "pulled"))
    assert (again.fetched_before, again.objects) == (4, {})
    assert not [asked for asked in service.asked if "instances" in asked]


def test_pages_filters_faults_and_vanished_objects(service: Service, tmp_path: Path) -> None:
    for number, ds in enumerate(service.datasets):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.826.0.5.{number}", f"1.2.826.0.6.{number}"
        ds.StudyDate, ds.Modality = ("20260101" if number else "20250101"), ("CT" if number != 2 else "MR")
    service.statuses = {"studies": [503], "series": [404], "instances": [503]}  # one study is gone already
    report = pull(config(service, tmp_path / "inbox", since="2026-01-01", modalities=("CT",)))
    assert report.failed == 0 and report.objects == {"stored": 9}
    service.statuses = {"instances": [404, 404]}
    gone = pull(config(service, tmp_path / "inbox", since="2026-01-01"))
    assert gone.vanished == 2 and "removed" in gone.notes[0]


def test_a_service_that_is_down_or_not_one_is_reported_without_urls(
    service: Service, tmp_path: Path, caplog: Any
) -> None:
    with pytest.raises(SendError, match=r"\b404\.$"):
        service.statuses = {"studies": [404]}
        pull(config(service, tmp_path / "inbox"))
    with pytest.raises(SendError, match="reached"):
        pull(PullConfig(source="http://127.0.0.1:1/x", inbox=tmp_path / "inbox", everything=True))
    service.statuses = {"instances": [400] * 9}
    report = pull(config(service, tmp_path / "inbox"))
    assert report.failed == 4
    output = caplog.text + json.dumps(report.to_json())
    assert not any(ds[keyword].value in output for ds in service.datasets for keyword in UIDS)


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_the_credential_comes_from_the_environment_or_a_private_file(
    scheme: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, service.required_header = {
        "basic": ("basic night:sec:ret", "Basic bmlnaHQ6c2VjOnJldA=="),
        "bearer": ("Bearer to.k-en\n", "Bearer to.k-en"),
    }[scheme]
    file = tmp_path / "auth"
    file.write_text(text)
    file.chmod(0o600)
    monkeypatch.setenv("PACS_AUTH", text)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # which must not win
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password else\n")
    base = ["-w", str(tmp_path / "w"), "pull", service.url, "--all", "--reserve-gib", "0", "--json"]
    refused = CliRunner().invoke(group, base)
    assert refused.exit_code == 10 and "401" in refused.output and "--auth-env" in refused.output
    assert service.headers[-1].get("Authorization") is None
    for way in (["--auth-env", "PACS_AUTH"], ["--auth-file", str(file)]):
        done = CliRunner().invoke(group, [*base, *way])
        assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "w").rglob("*.dcm"))) == 12
    file.chmod(0o644)
    with pytest.raises(IdentityError, match="0644"):
        Credential.read(None, file)


@pytest.mark.parametrize(
    "text", ["secret", "basic secret", "bearer", "digest a:b", "", "bearer a\nb", "basic a:b\r\nX: y"]
)
def test_an_invalid_credential_is_refused_without_showing_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_AUTH", text)
    with pytest.raises(ConfigError) as caught:
        Credential.read("PACS_AUTH", None)
    assert "secret" not in str(caught.value) and "PACS_AUTH" in str(caught.value)


def test_a_credential_is_never_shown_nor_sent_in_the_clear(tmp_path: Path) -> None:
    credential = Credential.parse("bearer verysecret", "a test")
    service = WebService.parse("https://pacs.example/dicom-web/", credential)
    assert "verysecret" not in repr(service) + repr(Stow(service))
    with pytest.raises(ConfigError, match="credential.*https"):
        require_destination("http://pacs.example/dicom-web", tmp_path, credential=credential)
    with pytest.raises(ConfigError, match="Drop --auth-env"):
        require_destination("PACS@host:104", tmp_path, credential=credential)
    with pytest.raises(ConfigError, match="URL.*--auth-env"):
        require_destination("https://night:secret@pacs.example/", tmp_path)
    with pytest.raises(ConfigError, match="two credentials"):
        Credential.read("A", tmp_path)


def test_the_first_part_of_a_message() -> None:
    body = b"preamble\r\n--x\r\nA: b\r\n\r\n\x00\r\n\xff\r\n--x--"
    assert read_first_part("multipart/related; boundary=x", body) == b"\x00\r\n\xff"
    assert read_first_part("application/dicom", b"DICM") == b"DICM"
    for kind, damaged in (("multipart/related", body), ("multipart/related; boundary=y", body)):
        with pytest.raises(ValueError):
            read_first_part(kind, damaged)
