"""The command that serves: where it listens, how it stops, and what it says when something breaks."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MAIN = "import sys; sys.argv[0] = 'nightread'; from pipeline.cli import main; main()"


@pytest.fixture
def started(night: Any) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Return a function that starts `nightread review start` and waits until it listens."""
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", MAIN, "-w", str(night.settings.workspace), "review", "start", "--port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*command, "--json", *options], stdout=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        return process, json.loads(process.stdout.readline())["url"]

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_listens_on_the_loopback_and_stops_on_a_signal(started: Any) -> None:
    process, url = started()
    assert url.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{url}health").read() == b"ok"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.slow
def test_it_speaks_tls(started: Any, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *names, *files], check=True, capture_output=True)
    _, url = started("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    assert url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    answer = urllib.request.urlopen(f"{url}health", context=trusting)
    assert answer.read() == b"ok"
    assert answer.headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "0.0.0.0"), "unencrypted"),
        (("--tls-cert", "only.pem"), "--tls-key"),
        (("--user-header", "x-user"), "--proxy"),
        (("--host", "127.0.0.1", "--port", "0", "--tls-cert", "no.pem", "--tls-key", "no.key"), "certificate"),
        (("--host", "192.0.2.1", "--plain-http"), "Cannot listen"),
    ],
)
def test_configuration_errors_are_reported_before_it_listens(night: Any, options: tuple[str, ...], words: str) -> None:
    from click.testing import CliRunner

    from pipeline.cli import group

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(group, ["-w", str(night.settings.workspace), "review", "start", *options])
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert done.exit_code == 2
    assert words in done.output


def test_a_fault_of_the_program_tells_no_name(
    browser: Any, room: Any, night: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = browser("ann")

    def broken(*_: object) -> None:
        raise RuntimeError(f"cannot read the scan of {night.planted}")

    monkeypatch.setattr(type(room.review.worklist), "read_page", broken)
    with caplog.at_level(logging.DEBUG):
        answer = one.get("/")
    assert answer.status_code == 500
    assert "RuntimeError at" in answer.text
    assert answer.headers["content-security-policy"]
    assert night.planted not in answer.text + caplog.text
