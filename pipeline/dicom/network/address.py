"""Another application entity (PS3.8): how it is written, how it is called, and why it did not answer."""

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
PASSING = range(0xA700, 0xA800)  # out of resources: it may pass; every other failure is final
# Result, source and diagnostic of A-ASSOCIATE-RJ (PS3.8 9.3.4) that a person can do something about.
_REJECTIONS = {
    (1, 1, 3): "it does not know our AE title: have it registered there, or give another --ae-title",
    (1, 1, 7): "it goes by another AE title: correct the part before the @",
    (2, 3, 1): "it is congested",
    (2, 3, 2): "it has too many associations",
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
        """As it is written."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, calling: str = "NIGHTREAD", tls: TlsFiles | None = None) -> Self | None:
        """Return what is meant by `AETITLE@host:port`, None where the text is not of that form."""
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
            contexts: presentation contexts to ask for.
            what: for the error message, what the other side would have to support.
            roles: of PS3.7 D.3.3.4, where we are the provider.
            handlers: of pynetdicom's events.
            silent_seconds: how long an answer may take.

        Raises:
            SendError: not reachable, rejected, or none of the contexts was accepted.
        """
        from pynetdicom import AE

        from pipeline.dicom.network.tls import client_context

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
            tls_args=None if self.tls is None else (client_context(self.tls), self.host),
        )
        if not association.is_established:
            raise self._explained(association, what)
        # Command and data set are two writes; the second would wait for the other side's delayed acknowledgement.
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
        return SendError(f"{self.name} cannot be reached.", passing=True)


def hold_reactor(association: Any) -> None:
    """Stop pynetdicom's reactor before a request is sent; once the request is answered, it runs again.

    pynetdicom 3.0.4 takes it for stopped when it has only been on its way past the checkpoint: under load it then took
    about one answer in four thousand away from who waited for it. One that sleeps at the checkpoint cannot.
    """
    association._reactor_checkpoint.clear()
    deadline = time.monotonic() + _HOLD_SECONDS
    while not association._reactor_checkpoint._cond._waiters and time.monotonic() < deadline:
        time.sleep(0.0002)
