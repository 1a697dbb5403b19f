"""The application: routes, guards, and what an error looks like."""

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
    login,
    overview,
    reading,
    similar_page,
    slice_pixels,
    users_page,
    worklist_page,
)
from pipeline.review.web.access import LogInFirst, reader_of, send_to_login
from pipeline.review.web.app_state import STATIC, Room
from pipeline.review.web.pages import message
from pipeline.review.web.security import STATIC as STATIC_PATH
from pipeline.review.web.security import Guard

TITLES = {403: "Not allowed", 404: "Not here", 409: "That did not work", 422: "Not understood", 503: "One moment"}


def create_app(room: Room) -> FastAPI:
    """Return the reading list of an open workspace, which the caller closes."""
    # No schema pages: they would load scripts from elsewhere, and the policy would refuse them.
    app = FastAPI(title="Nightread", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.room = room
    app.add_middleware(Guard)
    app.mount(STATIC_PATH, StaticFiles(directory=STATIC), name="static")
    for module in (login, worklist_page, reading, assigning, slice_pixels, similar_page, overview, users_page):
        app.include_router(module.router)
    app.add_api_route("/health", _health, methods=["GET"])
    _add_errors(app)
    return app


def _health() -> PlainTextResponse:
    """Say that the server answers; no session is needed, and nothing is told."""
    return PlainTextResponse("ok")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(LogInFirst)
    async def log_in_first(request: Request, error: LogInFirst) -> Response:
        return send_to_login(request)

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        return await _said(request, 422, "The address or the form holds a value that this page does not take.")

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        response = await _said(request, error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(NightreadError)
    async def raised_on_purpose(request: Request, error: NightreadError) -> Response:
        return await _said(request, 503 if isinstance(error, CatalogueError) else 409, str(error))


async def _said(request: Request, status: int, sentence: str) -> Response:
    """Answer a page with a page, and a script with JSON."""
    if "text/html" not in request.headers.get("accept", "") and not request.headers.get("hx-request"):
        return JSONResponse({"detail": sentence}, status)
    room: Room = request.app.state.room
    try:
        reader = await run_in_threadpool(reader_of, request, room)
    except (LogInFirst, HTTPException, NightreadError):
        return PlainTextResponse(sentence, status)
    title = TITLES.get(status, "That did not work")
    return await run_in_threadpool(message, request, room, reader, title, sentence, status)
