"""HTTP connections with limits: a request must arrive within some seconds, and one address cannot hold them all.

uvicorn waits for ever for the rest of a request, so some hundreds of half-sent ones use up the file descriptors
(Slowloris).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0  # from the opening of a connection, or the last answer on it, to the end of the next request's header
BODY_S = 30.0  # from there to the end of its body, which is at most a form
LOOK_S = 1.0
MOST = 600  # connections in all
MOST_AN_ADDRESS = 150  # from one address, unless it is a listed proxy


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol, with the limits. Subclasses set `proxies`; the counts belong to one event loop."""

    proxies: frozenset[str] = frozenset()
    open_from: Counter[str]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._since, self._in_body = self.loop.time(), False
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it at once if there are too many."""
        super().connection_made(transport)
        address = self._address()
        self.open_from[address] += 1
        crowded = self.open_from[address] > MOST_AN_ADDRESS and address not in self.proxies
        if crowded or self.open_from.total() > MOST:
            transport.abort()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        address = self._address()
        self.open_from[address] -= 1
        if self.open_from[address] <= 0:
            del self.open_from[address]
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _look(self) -> None:
        """Close the connection if the request is late, else look again in a moment."""
        now = self.loop.time()
        answering = self.cycle is not None and not self.cycle.response_complete
        in_body = answering and self.cycle.more_body
        if (answering and not in_body) or in_body != self._in_body:
            self._since, self._in_body = now, in_body  # the server's turn, or a new part of the request
        elif now - self._since > (BODY_S if in_body else HEADER_S):
            self.transport.abort()
            return
        self._looking = self.loop.call_later(LOOK_S, self._look)


def limited(listed: tuple[str, ...]) -> type[LimitedProtocol]:
    """Return the protocol of one server behind the listed proxies, with counts of its own."""

    class Protocol(LimitedProtocol):
        proxies = frozenset(listed)
        open_from: Counter[str] = Counter()

    return Protocol
