"""Address of another application entity (PS3.8): its notation, the association with it, and reasons for failure."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.dicom.network.config import TlsFiles
from pipeline.errors import SendError

CONNECT_SECONDS = 30.0
_HOLD_SECONDS = 2.0
PASSING = range(0xA700, 0xA800)  # out of resources: trying again may help; every other failure is final
# (Result, source, diagnostic) of A-ASSOCIATE-RJ (PS3.8 9.3.4) where a person can act.
_REJECTIONS = {
    (1, 1, 3): "it does not know our AE title: register it there, or pass another --ae-title",
    (1, 1, 7): "it has another AE title: correct the part before the @",
    (2, 3, 1): "it is congested: try again later",
    (2, 3, 2): "it has too many associations: try again later",
}


@dataclass(frozen=True, slots=True)
class Address:
    """An application entity, written `AETITLE@host:port`; `calling` is our own title."""

    ae_title: str
    host: str
    port: int
    calling: str = "NIGHTREAD"
    tls: TlsFiles | None = None

    @property
    def name(self) -> str:
        """The address in its written form."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, calling: str = "NIGHTREAD", tls: TlsFiles | None = None) -> Self | None:
        """Return the address written as `AETITLE@host:port`, or None where the text does not have that form."""
        title, at, address = text.partition("@")
        host, colon, port = address.rpartition(":")
        if at and colon and title and len(title) <= 16 and host and port.isdigit() and 0 < int(port) < 65536:
            return cls(title, host, int(port), calling, tls)
        return None

    def associate(
        self,
        contexts: Sequence[Any],
        what: str,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
        silent_seconds: float = CONNECT_SECONDS,
    ) -> Any:
        """Return an established association of pynetdicom.

        Args:
            contexts: presentation contexts to propose.
            what: for error messages, what the other side would have to support, e.g. "answer queries (C-FIND)".
            roles: role selections (PS3.7 D.3.3.4), for operations where we are the provider.
            handlers: event handlers of pynetdicom.
            silent_seconds: longest wait for an answer.

        Raises:
            SendError: it is not reachable, or rejects the association or all contexts.
        """
        from pynetdicom import AE

        from pipeline.dicom.network.tls import load_client_context

        entity = AE(ae_title=self.calling)
        entity.acse_timeout = entity.connection_timeout = CONNECT_SECONDS
        entity.dimse_timeout = entity.network_timeout = silent_seconds
        association = entity.associate(
            self.host,
            self.port,
            list(contexts),
            ae_title=self.ae_title,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
            tls_args=None if self.tls is None else (load_client_context(self.tls), self.host),
        )
        if not association.is_established:
            raise self._explained(association, what)
        # Command and data set are two writes. With Nagle's algorithm the second waits for a delayed acknowledgement.
        association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hold_reactor(association)
        return association

    def _explained(self, association: Any, what: str) -> SendError:
        if association.is_rejected:
            answer = association.acceptor.primitive
            reason = (answer.result, answer.result_source, answer.diagnostic)
            why = f": {_REJECTIONS[reason]}" if reason in _REJECTIONS else ""
            return SendError(f"{self.name} rejected the association {reason}{why}.", passing=answer.result == 2)
        if association.rejected_contexts:
            return SendError(f"{self.name} does not {what}.", passing=False)
        sentence = f"{self.name} cannot be reached. Check host, port, firewall and whether it is running."
        return SendError(sentence, passing=True)


def hold_reactor(association: Any) -> None:
    """Pause pynetdicom's reactor thread before a request is sent; it resumes when the request is answered.

    pynetdicom 3.0.4 believes the reactor is paused while it is still on its way to the checkpoint. Under load it then
    stole about one answer in four thousand from the thread that waits for it. Once it sleeps there, it cannot.
    """
    # No public API tells whether the reactor sleeps, hence the waiters of the event's own condition.
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + _HOLD_SECONDS
    while not association._reactor_checkpoint._cond._waiters and time.monotonic() < deadline:
        time.sleep(0.0002)
