"""Slow and many connections: late requests are closed, one address cannot take all places, others are still served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.review.web import connections

pytest.importorskip("uvicorn", reason="uvicorn (extra `review`) is not installed")
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"


async def _answer(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with short limits; 127.0.0.9 is a listed proxy."""
    import uvicorn

    for name, value in {"HEADER_S": 1.0, "BODY_S": 1.0, "LOOK_S": 0.1, "MOST_AN_ADDRESS": 20, "MOST": 60}.items():
        monkeypatch.setattr(connections, name, value)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as bound:
        protocol = connections.limited(("127.0.0.9",))
        config = uvicorn.Config(_answer, http=protocol, ws="none", loop="asyncio", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def opened(port: int, data: bytes, address: str = "127.0.0.1") -> socket.socket:
    """Connect from an address of the loopback and send something."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=150, source_address=(address, 0))
    connection.sendall(data)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server closes the connection without an answer (waits up to the socket's timeout)."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def is_answered(connection: socket.socket) -> bool:
    """Return whether an answer with status 200 comes."""
    with connection:
        try:
            return connection.recv(100).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            return False


@pytest.mark.parametrize("data", [b"", HALF, POST])
def test_a_request_that_does_not_end_is_closed(port: int, data: bytes) -> None:
    begun = time.monotonic()
    with opened(port, data) as connection:
        assert is_closed(connection)
    assert 0.5 < time.monotonic() - begun < 120


def test_a_second_request_on_a_connection_has_its_time_too(port: int) -> None:
    with opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        answer = b""
        while not answer.endswith(b"ok"):
            answer += connection.recv(1000)
        connection.sendall(HALF)
        assert is_closed(connection)


def test_one_address_cannot_take_every_place(port: int) -> None:
    slow = [opened(port, HALF, "127.0.0.2") for _ in range(40)]
    assert is_answered(opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.3"))
    assert not is_answered(opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.2"))
    for connection in slow:
        assert is_closed(connection)
        connection.close()
    assert is_answered(opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.2")), "the places are free again"


def test_a_listed_proxy_has_more_places_but_not_all(port: int) -> None:
    slow = [opened(port, HALF, "127.0.0.9") for _ in range(40)]
    assert is_answered(opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.9"))
    slow += [opened(port, HALF, "127.0.0.9") for _ in range(30)]
    assert sum(is_closed(connection) for connection in slow) == 70
    assert is_answered(opened(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.3"))
    for connection in slow:
        connection.close()
