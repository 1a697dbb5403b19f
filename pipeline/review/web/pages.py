"""Frame of every page: the user and the navigation."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from pipeline.review.web.access import Reader
from pipeline.review.web.app_state import Room

PAGES = (
    ("list", "/", "Reading list", "list"),
    ("night", "/night", "The night", "night"),
    ("models", "/models", "Models", "model"),
    ("users", "/users", "Users", "users"),
    ("audit", "/audit", "Audit log", "audit"),
)


def first_page(reader: Reader) -> str:
    """Return the first page that a reader's role may open; every role has one."""
    return next(path for _, path, _, action in PAGES if reader.may(action))


def page(
    request: Request, room: Room, reader: Reader, template: str, here: str, status: int = 200, **context: Any
) -> Response:
    """Render a page for a reader."""
    pages = [(name, path, words) for name, path, words, action in PAGES if reader.may(action)]
    around = {"user": reader, "csrf": reader.csrf, "pages": pages, "here": here}
    return room.templates.TemplateResponse(request, template, {**around, **context}, status)


def message(
    request: Request, room: Room, reader: Reader, title: str, sentence: str, status: int, kind: str = "bad"
) -> Response:
    """Render a page with one message."""
    context = {
        "title": title,
        "sentence": sentence,
        "kind": kind,
        "back": "/",
        "back_words": "Back to the reading list",
    }
    return page(request, room, reader, "message.html", "", status, **context)
