"""C-STORE listener: a Storage SCP (PS3.4 B) that writes to an inbox and answers C-ECHO (PS3.4 A)."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import socketserver
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from pipeline.dicom.network.config import ListenConfig
from pipeline.dicom.network.contexts import offered
from pipeline.dicom.network.inbox import Inbox
from pipeline.dicom.network.receive import UNSUPPORTED, Receiver, Tell, status
from pipeline.dicom.network.tls import load_server_context
from pipeline.errors import ConfigError

for _name in ("pynetdicom", "pydicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # they quote UIDs and data sets

_STEP_SECONDS = 0.1
_PDU_BYTES = 131072
_HANDSHAKE_SECONDS = 15.0  # also for the association request that must follow the connection
_WAITING = 100  # connections without an association request; the oldest is closed for the next one


class Listener:
    """Listens while the context is open; objects are durable in the inbox before they are acknowledged.

    Args:
        config: address, allowed senders and limits.
        tell: called with each event as a plain dictionary without identifiers.
        receiver: answers the requests, with an inbox that the caller opened and closes; default: one of its own.
    """

    def __init__(self, config: ListenConfig, tell: Tell, receiver: Receiver | None = None) -> None:
        self.config = config
        self._tell = tell
        self._shared = receiver
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        """Open the inbox and the port.

        Raises:
            CatalogueError: the inbox cannot be used. ConfigError: the port or the TLS files cannot be used.
        """
        tls = None if self.config.tls is None else load_server_context(self.config.tls)
        self.inbox = Inbox.open(self.config.inbox) if self._shared is None else self._shared.inbox
        try:
            self.receiver = self._shared or Receiver(
                self.inbox, self.config.limits, self.config.reserve_bytes, self._tell
            )
            self._ae = _application_entity(self.config)
            self._server = self._serve(tls)
        except BaseException:
            self._leave()
            raise
        self._accepting = threading.Thread(target=self._server.serve_forever, args=(_STEP_SECONDS,), daemon=True)
        self._accepting.start()
        return self

    def _serve(self, tls: Any) -> _Server:
        handlers = [(evt.EVT_C_STORE, self.receiver.answer), (evt.EVT_REJECTED, self._rejected)]
        try:
            server = self._ae.make_server(
                (self.config.host, self.config.port),
                ae_title=self.config.ae_title,
                ssl_context=tls,
                evt_handlers=handlers,
                server_class=_Server,
                request_handler=_Handler,
            )
            return cast(_Server, server)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {self.config.host}:{self.config.port}: {error.strerror}. Choose another --port or "
                "--host, or stop the program that uses this port."
            ) from None

    @property
    def port(self) -> int:
        """Port number that the listener listens on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Hand over quiet studies until `stop` is called."""
        pause = min(1.0, self.config.quiet_seconds / 4)
        while not self._stop.wait(pause):
            self.sweep()

    def sweep(self) -> None:
        """Hand over the studies that are quiet now; after a disk error the next sweep tries again."""
        try:
            for done in self.inbox.hand_over(self.config.quiet_seconds):
                self._tell({"event": "complete", "study": done.study, "objects": done.objects})
        except OSError as error:
            self._tell({"event": "delayed", "reason": error.strerror})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Accept no further associations, let running ones finish within the grace period, and abort the rest."""
        self._server.shutdown()
        self._accepting.join()
        deadline = time.monotonic() + self.config.grace_seconds
        while self._ae.active_associations and time.monotonic() < deadline:
            time.sleep(_STEP_SECONDS)
        self._server.close_waiting(0)
        for association in self._ae.every_association:
            association.abort()
        for association in self._ae.every_association:
            association.join(_HANDSHAKE_SECONDS)
        self._leave()

    def _leave(self) -> None:
        if self._shared is None:
            self.inbox.close()

    def _rejected(self, event: evt.Event) -> None:
        self.receiver.counts["rejected associations"] += 1
        self._tell({"event": "rejected", **_caller(event.assoc), "reason": _reason(event.assoc)})


def _caller(association: Association) -> dict[str, str]:
    """Return who called, and by which name they called us; a title may hold any printable characters."""
    request = association.requestor.primitive
    titles = (request.calling_ae_title, request.called_ae_title) if request is not None else ("", "")
    calling, called = (re.sub(r"[^\x20-\x7e]", "?", str(title or "").strip())[:16] for title in titles)
    return {"calling": calling, "called": called, "address": str(association.requestor.address)}


def _reason(association: Association) -> str:
    """Return why an association was rejected, from the answer that was sent (PS3.8 9.3.4)."""
    answer = association.acceptor.primitive
    diagnostic = int(getattr(answer, "diagnostic", None) or 0), int(getattr(answer, "result_source", None) or 0)
    return _REASONS.get(diagnostic, "the request is not valid")


_REASONS = {
    (0x03, 0x01): "calling AE title not allowed",
    (0x07, 0x01): "called by another AE title than ours",
    (0x02, 0x03): "too many associations",
}


class _Entity(AE):
    """Application entity that counts associations from their request on: an open connection alone does not count."""

    @property
    def active_associations(self) -> list[Association]:
        """The associations that were requested."""
        return [association for association in self.every_association if association.requestor.primitive is not None]

    @property
    def every_association(self) -> list[Association]:
        """The same, and connections that have not asked for one yet."""
        return super().active_associations


def _application_entity(config: ListenConfig) -> _Entity:
    entity = _Entity(ae_title=config.ae_title)
    entity.supported_contexts = offered()
    entity.require_called_aet = True
    entity.require_calling_aet = [] if config.allow_any else list(config.allowed)
    entity.maximum_associations = config.associations
    entity.maximum_pdu_size = _PDU_BYTES
    entity.network_timeout = config.idle_seconds
    entity.dimse_timeout = min(30.0, config.idle_seconds)
    entity.acse_timeout = min(_HANDSHAKE_SECONDS, config.idle_seconds)
    return entity


class _Server(ThreadedAssociationServer):
    """Server that performs TLS handshakes in the association's own thread: a silent caller blocks nobody else.

    Connections that never ask for an association are bounded, since each costs two threads.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._waiting: deque[tuple[Association, socket.socket]] = deque()
        self._guard = threading.Lock()
        super().__init__(*args, **options)

    def note_waiting(self, association: Association, connection: socket.socket) -> None:
        """Remember a new connection, and close the oldest ones that still wait if there are too many."""
        with self._guard:
            self._waiting.append((association, connection))
        self.close_waiting(_WAITING)

    def close_waiting(self, most: int) -> None:
        """Close the oldest connections without an association request, so that at most `most` are left."""
        with self._guard:
            still = [one for one in self._waiting if one[0].requestor.primitive is None and one[1].fileno() >= 0]
            surplus = len(still) - most
            self._waiting = deque(still[max(surplus, 0) :])
        for _, connection in still[: max(surplus, 0)]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # its thread sees the end and goes

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and wrap it in TLS, but leave the handshake to the handler."""
        connection, address = self.socket.accept()
        connection.settimeout(_HANDSHAKE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def shutdown(self) -> None:
        """Stop accepting and close the port; the associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that fail before they become an association; the default prints a traceback."""


class _Handler(RequestHandler):
    """Request handler whose associations answer an unknown SOP class instead of aborting."""

    def handle(self) -> None:
        """Perform the TLS handshake where TLS is used, then serve."""
        handshake = getattr(self.request, "do_handshake", None)
        if handshake is not None:
            handshake()
        self.request.settimeout(self.ae.network_timeout)
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.__class__ = _Association  # pynetdicom offers no way to name the class
        cast(_Server, self.server).note_waiting(association, self.request)
        return association


class _Association(Association):
    """Association that refuses storage requests of an unknown SOP class with 0x0122."""

    def _serve_request(self, msg: Any, context_id: int) -> None:
        unknown = isinstance(msg, C_STORE) and uid_to_service_class(msg.AffectedSOPClassUID) is ServiceClass
        if not (unknown and msg.is_valid_request and context_id in self._accepted_cx):
            super()._serve_request(msg, context_id)
            return
        response = C_STORE()
        response.MessageID = response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
        response.AffectedSOPClassUID = msg.AffectedSOPClassUID
        refused = StorageServiceClass(self).validate_status(status(UNSUPPORTED, "SOP class not supported"), response)
        self.dimse.send_msg(refused, context_id)
