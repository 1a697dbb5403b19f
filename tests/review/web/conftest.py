"""A scored workspace to read, and two browsers: a bare HTTP client, and Chromium without a screen."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2", reason="jinja2 (extra `review`) is not installed")
pytest.importorskip("uvicorn", reason="uvicorn (extra `review`) is not installed")
pytest.importorskip("argon2", reason="argon2-cffi (extra `review`) is not installed")
pytest.importorskip("python_multipart", reason="python-multipart (extra `review`) is not installed")

from starlette.testclient import TestClient

from pipeline.config import Settings
from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.review.permissions import Actor, CommandLine
from pipeline.review.web.app import create_app
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig
from pipeline.types import Finding, SliceScore

PASSWORD = "a long enough passphrase"
SETUP = CommandLine()
PEOPLE = {"ann": "reader", "ben": "reader", "lea": "lead", "ada": "admin", "aud": "auditor"}


@pytest.fixture(scope="session", autouse=True)
def quick_hashes() -> Iterator[None]:
    """Passwords of tests are hashed with little memory and time."""
    from argon2 import PasswordHasher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.review.users.PasswordHasher", partial(PasswordHasher, time_cost=1, memory_cost=64))
        yield


@pytest.fixture(scope="session")
def peopled(scored: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it with one user of each role and a second reader."""
    workspace = tmp_path_factory.mktemp("peopled") / "workspace"
    shutil.copytree(scored.settings.workspace, workspace, ignore=shutil.ignore_patterns("mlflow", "runs"))
    (workspace / "runs").symlink_to(scored.settings.runs)  # only read here, and too large to copy for each test
    with Room.open(Settings(workspace=workspace), WebConfig()) as opened:
        for name, role in PEOPLE.items():
            opened.review.users.add(name, role, PASSWORD, SETUP)
    return workspace


@pytest.fixture
def night(scored: Any, peopled: Path, tmp_path: Path) -> Any:
    """A copy of that, so that decisions of one test are not those of the next."""
    shutil.copytree(peopled, tmp_path / "workspace", symlinks=True)
    return replace(scored, settings=Settings(workspace=tmp_path / "workspace"))


@pytest.fixture
def room(night: Any) -> Iterator[Room]:
    """The open workspace."""
    with Room.open(night.settings, WebConfig()) as opened:
        yield opened


class Browser:
    """A client that keeps cookies and fills the hidden fields of the form that it saw last."""

    def __init__(self, room: Room, address: str = "203.0.113.7") -> None:
        # https, since the cookies are Secure; no redirects, since tests look at them.
        self.client = TestClient(
            create_app(room), base_url="https://reading.example", client=(address, 50000), follow_redirects=False
        )
        self.client.headers["accept"] = "text/html"

    def get(self, path: str, **headers: str) -> Any:
        """Load a page."""
        return self.client.get(path, headers=headers)

    def post(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        """Send a form."""
        return self.client.post(path, data=fields, headers=headers)

    def log_in(self, name: str, password: str = PASSWORD) -> Any:
        """Log in by the page."""
        csrf = hidden(self.get("/login").text, "csrf")
        return self.post("/login", {"name": name, "password": password, "csrf": csrf})

    def end_first_look(self, finding_id: int, outcome: str = "") -> Any:
        """Ask for the heatmap of a scan, with the outcome that is chosen until then."""
        return self.post(f"/scan/{finding_id}/heatmap", {"csrf": self.csrf(), "first_look": outcome})

    def csrf(self) -> str:
        """Return the session's token, as any page has it."""
        return hidden(self.get("/models").text, "csrf")

    def decide(self, finding_id: int, outcome: str, **fields: Any) -> Any:
        """Fill the form of a scan's page and send it."""
        page = self.get(f"/scan/{finding_id}").text
        names = ("csrf", "seen", "token")
        filled = {name: hidden(page.split('id="decide"')[1], name) for name in names}
        return self.post(
            f"/scan/{finding_id}/decision", {**filled, "outcome": outcome, **fields}, **{"hx-request": "true"}
        )


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    match = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert match, f"no field {name}"
    return match[1]


@pytest.fixture
def browser(room: Room) -> Callable[..., Browser]:
    """Return a function that opens a browser, logged in where a name is given."""

    def open_one(name: str = "", address: str = "203.0.113.7") -> Browser:
        one = Browser(room, address)
        if name:
            assert one.log_in(name).status_code == 303
        return one

    return open_one


@pytest.fixture
def setup() -> Actor:
    """The user who may see and change everything."""
    return SETUP


@pytest.fixture(name="hidden")
def hidden_fixture() -> Callable[[str, str], str]:
    """Return a function that reads a hidden field of a page."""
    return hidden


@pytest.fixture
def visit() -> Callable[[Room], Browser]:
    """Return a function that opens a browser at any open workspace."""
    return Browser


@pytest.fixture
def behind(room: Room) -> Callable[..., Browser]:
    """Return a function that opens a browser at an address, under another configuration of the server."""

    def open_one(config: WebConfig, address: str) -> Browser:
        return Browser(replace(room, config=config), address)

    return open_one


@pytest.fixture
def listed(room: Room) -> list[int]:
    """The findings on the list, in their order."""
    from pipeline.review.worklist import WorklistQuery

    return [row.finding_id for row in room.review.worklist.read_page(WorklistQuery()).rows]


def _pseudonym(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


@pytest.fixture
def pseudonym() -> Callable[..., str]:
    """Return a function that makes 32 hex digits that look like a pseudonym."""
    return _pseudonym


@pytest.fixture
def list_again(room: Room, night: Any) -> Callable[..., int]:
    """Return a function that lists a study under another model, as after a promotion, and returns the finding."""

    def add(study: str) -> int:
        scored = room.catalogue.run(night.run_id)
        run_id = room.catalogue.start_run("score", scored.route, scored.folder)
        row = next(row for row in room.catalogue.list_findings() if row.study_id == study)
        names = ("instance_id", "frame", "series_id")
        evidence = tuple(SliceScore(*(one[name] for name in names), study, row.patient_id, 1.0) for one in row.evidence)
        finding = Finding(study, row.patient_id, row.route, 1.0, 0.001, 99, "conformal", True, "fpr", evidence)
        room.catalogue.add_findings(run_id, [finding], "f" * 64)
        room.catalogue.finish_run(run_id, sha256="f" * 64)
        draw_reading_lists(room.catalogue, night.settings.review)
        return next(row.id for row in room.catalogue.list_findings(run_id))

    return add


@pytest.fixture
def enter(room: Room, night: Any) -> Callable[..., int]:
    """Return a function that enters a flagged study of series [F, H, W] with these attributes; returns its finding."""

    def add(
        name: str,
        stacks: Sequence[np.ndarray],
        worst: int = 0,
        steps_mm: Sequence[float] = (1.0,),
        frames_of_reference: Sequence[str] = ("",),
        **attributes: Any,
    ) -> int:
        study, patient = (_pseudonym(level, name) for level in ("study", "patient"))
        by_series = [
            _enter_series(
                room, (patient, study, _pseudonym("series", name, number)), images, attributes,
                steps_mm[number % len(steps_mm)], frames_of_reference[number % len(frames_of_reference)],
            )
            for number, images in enumerate(stacks)
        ]  # fmt: skip
        order = [by_series[0].pop(worst), *(place for series in by_series for place in series)]
        scores = [SliceScore(*place, study, patient, 1.0 / (rank + 1)) for rank, place in enumerate(order)]
        scored = room.catalogue.run(night.run_id)
        run_id = room.catalogue.start_run("score", scored.route, scored.folder)
        finding = Finding(study, patient, scored.route, 1.0, 0.001, 99, "conformal", True, "fpr", tuple(scores))
        room.catalogue.add_findings(run_id, [finding], scored.sha256)
        room.catalogue.finish_run(run_id, sha256=scored.sha256)
        draw_reading_lists(room.catalogue, night.settings.review)
        return next(row.id for row in room.catalogue.list_findings(run_id))

    return add


@pytest.fixture
def enter_earlier(room: Room, enter: Callable[..., int]) -> Callable[..., str]:
    """Return a function that enters another study of the patient of `enter(name, ...)`; returns its pseudonym.

    `days` is how much earlier it was made (None: the crosswalk has no date). `uid_of` gives the real identifiers.
    """
    from pipeline.dicom.decode.attributes import RawIdentity
    from pipeline.dicom.identity.crosswalk import Crosswalk

    def add(
        name: str,
        other: str,
        stacks: Sequence[np.ndarray],
        days: int | None = 365,
        step_mm: float = 1.0,
        **attributes: Any,
    ) -> str:
        patient = _pseudonym("patient", name)
        studies = {name: date(2026, 3, 2), other: None if days is None else date(2026, 3, 2) - timedelta(days)}
        with Crosswalk.open(room.settings) as crosswalk:
            for one, day in studies.items():
                ids = Ids(patient, *(_pseudonym(level, one) for level in ("study", "series", "instance")))
                uids = {f"{level}_uid": uid_of(level, one) for level in ("study", "series", "sop")}
                made = "" if day is None else f"{day:%Y%m%d}"
                crosswalk.remember(ids, RawIdentity(patient_id=f"ID of {name}", study_date=made, **uids))
        study = _pseudonym("study", other)
        for number, images in enumerate(stacks):
            _enter_series(room, (patient, study, _pseudonym("series", other, number)), images, attributes, step_mm)
        return study

    return add


@pytest.fixture
def uid() -> Callable[[str, str], str]:
    """Return a function that gives the real UID behind the pseudonyms of `enter_earlier`."""
    return uid_of


def _enter_series(
    room: Room,
    ids: tuple[str, str, str],
    images: np.ndarray,
    attributes: dict[str, Any],
    step_mm: float = 1.0,
    frame_of_reference: str = "",
) -> list[tuple[str, int, str]]:
    """Enter each image as an object, or all as one where `frames` says so; return (instance, frame, series) of each."""
    frames, store = attributes.get("frames", 1), PixelStore(room.settings.store)
    objects = [images] if frames > 1 else [image[None] for image in images]
    places = []
    with room.catalogue.session() as session:
        for number, pixels in enumerate(objects):
            instance = _pseudonym("instance", ids[2], number)
            plain = {
                "orientation": (1, 0, 0, 0, 1, 0),
                "pixel_spacing_mm": (0.7, 0.7),
                "positions": tuple((0.0, 0.0, step_mm * (number + frame)) for frame in range(frames)),
            }
            size = {"rows": pixels.shape[1], "columns": pixels.shape[2], "instance_number": number}
            header = InstanceAttributes(**size, **{**plain, **attributes})
            own = Ids(*ids, instance, frame_of_reference_id=frame_of_reference)
            room.catalogue.add_instance(session, own, header, pixel_key=store.put(pixels))
            places += [(instance, frame, ids[2]) for frame in range(frames)]
    return places


def uid_of(level: str, name: str) -> str:
    """Return the UID that stands for a real one behind the pseudonym of a study, series or image."""
    return f"1.2.840.{int(_pseudonym('uid', level, name)[:8], 16)}"


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--disable-dev-shm-usage", "--lang=en-GB")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium without a screen; Playwright's own download is not used.

    Until it is closed, Playwright has an event loop in this thread, in which Prefect returns coroutines.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    binary = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if binary is None:
        pytest.skip("chromium (Debian package chromium) is not installed")
    with driver.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=binary, args=list(FLAGS))
        yield launched
        launched.close()


@contextmanager
def served(room: Room, port: int = 0) -> Iterator[str]:
    """Serve an open workspace on a port of the loopback, 0 for a free one; yields its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", port), backlog=256) as bound:
        server = uvicorn.Server(uvicorn.Config(create_app(room), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def serving() -> Callable[..., AbstractContextManager[str]]:
    """Return the context manager that serves an open workspace."""
    return served


@pytest.fixture
def site(room: Room) -> Iterator[str]:
    """The address of a served workspace."""
    with served(room) as address:
        yield address
