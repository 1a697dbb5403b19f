"""The web application: routes, guards and error pages."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from pipeline.errors import CatalogueError, NightreadError
from pipeline.review.web import (
    assigning,
    drafting,
    earlier,
    login,
    overview,
    promotions_page,
    reading,
    similar_page,
    slice_pixels,
    strip_page,
    thumbnails,
    trail_page,
    users_page,
    worklist_page,
)
from pipeline.review.web.access import LogInFirst, require_reader, send_to_login
from pipeline.review.web.app_state import STATIC, Room
from pipeline.review.web.pages import message
from pipeline.review.web.security import STATIC as STATIC_PATH
from pipeline.review.web.security import Guard

SCAN_PAGES = (reading, drafting, assigning, slice_pixels, strip_page, earlier, thumbnails, similar_page)
MODULES = (login, worklist_page, *SCAN_PAGES, overview, promotions_page, trail_page, users_page)
TITLES = {403: "Not allowed", 404: "Not found", 409: "That did not work", 422: "Not valid", 503: "Try again"}


def create_app(room: Room) -> FastAPI:
    """Return the web application of an open workspace, which the caller closes."""
    # No schema pages: they load scripts from elsewhere, which the content security policy blocks.
    app = FastAPI(title="Nightread", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.room = room
    app.add_middleware(Guard)
    app.mount(STATIC_PATH, StaticFiles(directory=STATIC), name="static")
    for module in MODULES:
        app.include_router(module.router)
    app.add_api_route("/health", _health, methods=["GET"])
    _add_errors(app)
    return app


def _health() -> PlainTextResponse:
    """Report that the server is up; needs no session and reveals nothing."""
    return PlainTextResponse("ok")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(LogInFirst)
    async def log_in_first(request: Request, error: LogInFirst) -> Response:
        return send_to_login(request)

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        return await _said(
            request, 422, "The address or the form holds a value that is not valid here. Go back and try again."
        )

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        response = await _said(request, error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(NightreadError)
    async def raised_on_purpose(request: Request, error: NightreadError) -> Response:
        return await _said(request, 503 if isinstance(error, CatalogueError) else 409, str(error))


async def _said(request: Request, status: int, sentence: str) -> Response:
    """Report an error: as a page to a browser, as JSON to a script."""
    if "text/html" not in request.headers.get("accept", "") and not request.headers.get("hx-request"):
        return JSONResponse({"detail": sentence}, status)
    room: Room = request.app.state.room
    try:
        reader = await run_in_threadpool(require_reader, request, room)
    except (LogInFirst, HTTPException, NightreadError):
        return PlainTextResponse(sentence, status)
    title = TITLES.get(status, "That did not work")
    return await run_in_threadpool(message, request, room, reader, title, sentence, status)
