"""The pictures of the README, taken from a phantom night: `make figures` keeps them.

With NIGHTREAD_FIGURES=<folder> they are written there; without it they are still taken and checked. One of
them moves: a scan is opened, looked at, decided and signed by keyboard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).resolve().parents[3] / "configs" / "runs" / "demo-mr.yaml"
IMAGES = 1600 if os.environ.get("NIGHTREAD_FIGURES") else 320  # pictures that nobody keeps need no good model
SHORT = (
    f"method={CONFIG.parents[1] / 'methods' / 'ladder_fsq_noise.yaml'}",  # one model: an ensemble needs more normals
    f"training.images={IMAGES}",
    f"training.validate_every_images={IMAGES // 2}",
    "detection.flagging={rule: capacity, capacity: 5, alpha: 0.2}",
)
SIZE = {"width": 1280, "height": 800}
MOVING_SIZE, MOVING_BYTES = (880, 550), 1_000_000


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Phantom brains of 192 pixels, nine slices each, and a model that was trained for a minute at most."""
    from pipeline.data.ingest.ingest import ingest
    from pipeline.data.labels.labels import import_labels
    from pipeline.dicom.phantom.demo import FAMILY, KINDS
    from pipeline.dicom.phantom.folder import write_labels, write_phantoms
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.evaluate import evaluate
    from pipeline.stages.detect.score import find_detectors_to_run, score
    from pipeline.stages.detect.train import train
    from pipeline.stages.run.run_config import RunConfig

    folder = tmp_path_factory.mktemp("hospital")
    settings = Settings(workspace=folder / "workspace")
    studies = write_phantoms(
        folder / "archive", 90, "MR", 1 / 5, 5, size=192, slices=5, family=FAMILY, kinds=KINDS, grades=(3, 2)
    ).studies
    labels = write_labels(studies, folder)
    write_phantoms(folder / "inbox", 14, "MR", 0.4, 6, size=192, slices=9, grades=(3,), family=FAMILY, kinds=KINDS)
    ingest([folder / "archive", folder / "inbox"], settings)
    import_labels(labels, settings)
    run = calibrate(train(load_config(CONFIG, RunConfig, SHORT), settings), settings).run
    assert [one.sha256 for one in find_detectors_to_run(settings, "phantom-mr")] == [run.sha256]
    score(run, settings)
    evaluate(run, settings)
    return settings


@pytest.fixture
def address(hospital: Settings, serving: Any, setup: Any) -> Iterator[str]:
    with Room.open(hospital, WebConfig()) as room:
        for name, role in (("ann", "reader"), ("ben", "reader")):
            room.review.users.add(name, role, "a long enough passphrase", setup)
        with serving(room) as where:
            yield where


def test_the_pictures_of_readme(chromium: Any, address: str, hospital: Settings, tmp_path: Path) -> None:
    folder = Path(os.environ.get("NIGHTREAD_FIGURES") or tmp_path)
    window = chromium.new_context(viewport=SIZE, base_url=address)
    page = window.new_page()
    page.goto("/")
    page.fill("#name", "ann")
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    page.wait_for_selector("#list")
    flagged = most_unusual(hospital)
    shoot_moving(page, flagged, folder / "reading-list.webp")
    read_some(page)
    page.goto("/?state=all")
    page.keyboard.press("j")
    shoot(page, folder / "review-list.png")
    page.goto(f"/scan/{flagged}")
    page.wait_for_selector("#viewer[data-heat]")
    page.wait_for_selector(".thumbs", timeout=120_000)
    page.wait_for_timeout(1500)
    page.keyboard.press("r")
    page.wait_for_timeout(1500)
    shoot(page, folder / "review-scan.png")
    window.close()


def most_unusual(settings: Settings) -> int:
    """Return the number of the flagged finding with the highest score."""
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        query = select(FindingRow.id).where(FindingRow.flagged).order_by(FindingRow.score.desc())
        number = session.scalars(query).first()
        assert number is not None
        return number


def shoot_moving(page: Any, number: int, file: Path) -> None:
    """Read one scan by keyboard and keep what the screen shows after each key, as a picture that moves."""
    frames = [(look(page), 1500)]
    page.goto(f"/scan/{number}")
    page.wait_for_selector("#viewer[data-ready]")
    page.uncheck("#go-on")
    page.locator("#pane-main").focus()
    for keys, milliseconds in (("", 1600), ("h", 2200), ("r", 2000), ("c", 1300), ("Enter", 3000)):
        for key in keys and [keys]:
            page.keyboard.press(key)
        if keys == "h":  # the first look has ended, so similar cases appear
            page.wait_for_selector(".thumbs", timeout=120_000)
        page.wait_for_timeout(2000)
        frames.append((look(page), milliseconds))
    pictures, times = zip(*frames, strict=True)
    save = {"save_all": True, "append_images": pictures[1:], "duration": list(times), "loop": 0}
    pictures[0].save(file, **save, quality=82, method=6)
    with Image.open(file) as moving:
        assert moving.n_frames == len(frames) and file.stat().st_size < MOVING_BYTES
    changes = [np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in pairwise(pictures)]
    assert min(changes) > 0.1, changes  # every key shows something


def wait_for_images(page: Any) -> None:
    """Wait until every small picture of the page is there; a missing one fails."""
    page.evaluate("for (const one of document.images) one.loading = 'eager'")  # also those below the fold
    for _ in range(240):
        if page.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth)"):
            return
        page.wait_for_timeout(250)
    pytest.fail("a small picture did not come")


def look(page: Any) -> Image.Image:
    """Return what the screen shows, at the size of the moving picture."""
    wait_for_images(page)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    return picture.resize(MOVING_SIZE, Image.Resampling.LANCZOS)


def read_some(page: Any) -> None:
    """Decide on four more scans, so that the list shows every outcome."""
    for outcome in ("d", "c", "u", "s"):
        page.goto("/")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector("#viewer[data-ready]")
        page.uncheck("#go-on")
        page.locator("#pane-main").focus()
        page.keyboard.press(outcome)
        page.keyboard.press("Enter")
        page.wait_for_selector(".history")


def shoot(page: Any, file: Path) -> None:
    """Take a picture that is not blank, with every small picture on it loaded."""
    wait_for_images(page)
    page.screenshot(path=file)
    picture = Image.open(file).convert("RGB")
    assert picture.size == (SIZE["width"], SIZE["height"])
    assert np.asarray(picture).std() > 10
    picture.save(file, optimize=True)
