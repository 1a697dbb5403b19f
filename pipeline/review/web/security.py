"""Security headers of every response, and the checks of requests that need no session."""

from __future__ import annotations

import logging
import os

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import DEBUG, UnforeseenError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STATIC = "/static/"
ASK_FIRST = "private, no-cache"  # cached but revalidated, so that a new release never mixes with old scripts
A_YEAR = "max-age=31536000"
_LOG = logging.getLogger(__name__)
LARGEST_FORM = 256 * 1024  # bytes
# Of what people type: three fields of a draft at their longest, of characters that take nine bytes each in a form.
LARGEST_TEXTS = 6 * 1024 * 1024
TEXTS = ("/draft", "/decision")


class Guard:
    """Reject requests that our pages never send, and add the headers to every response (ASGI middleware).

    Scans and everything about them are never stored by a browser or a proxy; scripts and styles may be.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                _dress(MutableHeaders(scope=message), scope, message["status"])
            await send(message)

        refused = refusal(scope["method"], Headers(scope=scope), scope["path"])
        try:
            await (refused or self._app)(scope, receive, sending)
        except ClientDisconnect:
            return  # nobody waits for an answer: the page was left while its form was on its way
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            # Its text and traceback may hold patient data, so log a message without them instead.
            sentence = str(UnforeseenError.of(error))
            _LOG.error(sentence)
            await PlainTextResponse(sentence, 500)(scope, receive, sending)


def _dress(headers: MutableHeaders, scope: Scope, status: int) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    is_static = scope["path"].startswith(STATIC) and status in (200, 304)
    headers["Cache-Control"] = ASK_FIRST if is_static else "no-store"
    if scope["scheme"] == "https":
        headers["Strict-Transport-Security"] = A_YEAR


def refusal(method: str, headers: Headers, path: str = "") -> PlainTextResponse | None:
    """Reject a form that comes from another site, or is larger than any of ours."""
    if method in ("GET", "HEAD"):
        return None
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return PlainTextResponse("This form came from another site. Open the reading list and use its own page.", 403)
    length, largest = headers.get("content-length", ""), LARGEST_TEXTS if path.endswith(TEXTS) else LARGEST_FORM
    if not length.isdigit() or int(length) > largest:
        return PlainTextResponse(f"A form must state its length, and may hold at most {largest} bytes.", 413)
    return None
