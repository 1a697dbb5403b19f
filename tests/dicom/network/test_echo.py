"""C-ECHO tells a listener that answers from a port that only the kernel keeps open."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pipeline.config import Settings
from pipeline.dicom.network.address import Address
from pipeline.dicom.network.config import TlsFiles
from pipeline.dicom.network.echo import answers_echo
from pipeline.stages.watch.components import Component
from tests.dicom.network.test_tls import certificate  # noqa: F401


@pytest.mark.parametrize(("called", "calling"), [("NIGHTREAD", "SCANNER1"), ("NIGHTREAD", "STRANGER"), ("X", "Y")])
def test_an_answer_counts_and_so_does_a_rejection(listen: Callable, called: str, calling: str) -> None:
    port = listen().listener.port
    assert answers_echo(Address(called, "127.0.0.1", port, calling), 10)


def test_a_port_behind_which_nobody_answers_does_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.watch.components.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel accepts, as for a stopped process
        port = hung.getsockname()[1]
        states = {kind: Component("listener", "", f"{kind}127.0.0.1:{port}").is_up(settings) for kind in KINDS}
    assert states == {"tcp://": True, "tls://": False, "dicom://SCANNER1:NIGHTREAD@": False}
    assert not any(Component("listener", "", f"{kind}127.0.0.1:{port}").is_up(settings) for kind in KINDS), "closed"


KINDS = ("tcp://", "tls://", "dicom://SCANNER1:NIGHTREAD@")


def test_the_check_of_a_site_asks_by_the_title_in_it(listen: Callable, settings: Settings) -> None:
    running = listen(ae_title="NIGHT READ")
    check = f"dicom://SCANNER1:NIGHT%20READ@127.0.0.1:{running.listener.port}"
    assert Component("listener", "", check).is_up(settings) and running.events == []
    assert Component("listener", "", check.replace("SCANNER1:", "")).is_up(settings)
    assert [event["calling"] for event in running.events] == ["NIGHTREAD"]  # rejected, which is an answer


def test_a_listener_with_tls_greets(listen: Callable, certificate: TlsFiles, settings: Settings) -> None:  # noqa: F811
    running = listen(tls=certificate)
    assert Component("listener", "", f"tls://127.0.0.1:{running.listener.port}").is_up(settings)
