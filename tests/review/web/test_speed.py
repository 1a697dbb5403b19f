"""Waiting times of a reader: the first image of a large CT, a very large radiograph, a long list, fifty people at once.

Each prints what it measured. The bounds hold on two busy cores with room to spare; the printed figures say more.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import insert, select

from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.catalogue.review_schema import Decision
from pipeline.data.catalogue.schema import Patient, Series, Study
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.types import Finding, SliceScore

pytestmark = pytest.mark.slow
FINDINGS = int(os.environ.get("NIGHTREAD_TEST_FINDINGS", "20000"))
READERS, EACH = 50, int(os.environ.get("NIGHTREAD_TEST_DECISIONS", "2"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints past pytest's capture."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}")

    return tell


@pytest.fixture
def page(chromium: Any, site: str) -> Any:
    window = chromium.new_context(viewport={"width": 1440, "height": 900}, base_url=site)
    opened = window.new_page()
    opened.goto("/login")
    opened.fill("#name", "ann")
    opened.fill("#password", "a long enough passphrase")
    opened.keyboard.press("Enter")
    opened.wait_for_selector("#list")
    yield opened
    window.close()


def test_the_first_image_of_a_large_ct(page: Any, enter: Any, listed: list[int], say: Any) -> None:
    noise = np.random.default_rng(1).normal(0, 20, (300, 512, 512))
    disc = np.hypot(*np.mgrid[-256:256, -256:256]) < 200
    ct = {"modality": "CT", "body_part": "CHEST", "rescale": ((1.0, 0.0),), "pixel_representation": 1}
    images = (noise + np.where(disc, 40, -1000)).astype(np.int16)
    finding = enter("ct", [images], worst=150, windows=((40.0, 400.0),), **ct)
    page.goto(f"/scan/{listed[0]}")  # scripts are in the browser's cache, as in the morning's second scan
    page.wait_for_selector("#viewer[data-ready]")
    first = []
    for _ in range(5):
        page.goto(f"/scan/{finding}")
        page.wait_for_selector("#viewer[data-ready='0/150']")
        first.append(page.evaluate("window.firstImage"))
    page.wait_for_timeout(4000)
    step = page.evaluate(
        """async () => {
          const times = [];
          for (let i = 0; i < 30; i += 1) {
            const begun = performance.now();
            document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            times.push(performance.now() - begun);
          }
          return times.sort((a, b) => a - b)[15];
        }"""
    )
    say(f"512 x 512 x 300 CT, from navigation to the first image: {first[0]:.0f} ms at first, then median "
        f"{sorted(first[1:])[2]:.0f} ms; next slice, prefetched: {step:.0f} ms")  # fmt: skip
    assert min(first) < 4000


def test_a_very_large_image(page: Any, enter: Any, say: Any) -> None:
    edge = 10_000
    ramp = (np.arange(edge, dtype=np.uint32)[:, None] + np.arange(edge, dtype=np.uint32)).astype(np.uint16)
    finding = enter("dx", [ramp[None]], modality="DX", body_part="CHEST", bits_stored=16)
    page.goto(f"/scan/{finding}")
    page.wait_for_selector("#viewer[data-ready]", timeout=60_000)
    whole = page.evaluate("window.firstImage")
    assert "1 : 3" in page.inner_text("#reduced-words")
    begun = time.perf_counter()
    page.locator("#pane-main").focus()
    page.keyboard.press("e")
    page.wait_for_selector("#reduced-words:has-text('a part')", timeout=60_000)
    say(f"10 000 x 10 000, 16 bits: first image after {whole:.0f} ms, every pixel of a part after "
        f"{1000 * (time.perf_counter() - begun):.0f} ms")  # fmt: skip


def test_a_long_list(room: Any, night: Any, site: str, say: Any, pseudonym: Any) -> None:
    fill_list(room, night, pseudonym)
    client = httpx.Client(base_url=site, timeout=60)
    log_in(client, "ann")
    times = []
    paths = [
        "/?state=all",
        "/",
        "/?state=new&modality=CT",
        "/?body_part=HEAD",
        f"/?search={pseudonym('study', 77)[:8]}",
    ]
    path, following = "/", ""
    for turn in range(100):
        path = following or paths[turn % len(paths)]
        begun = time.perf_counter()
        answer = client.get(path, headers={"accept": "text/html"})
        times.append(time.perf_counter() - begun)
        assert answer.status_code == 200, path
        link = re.search(r'href="([^"]*)" rel="next"', answer.text)
        following = link[1].replace("&amp;", "&") if link and turn % 3 else ""
    times.sort()
    say(f"the list with {FINDINGS} findings: median {1000 * times[50]:.0f} ms, p95 {1000 * times[95]:.0f} ms")
    assert times[95] < 20


def fill_list(room: Any, night: Any, pseudonym: Callable[..., str]) -> None:
    """Enter flagged findings of as many patients."""
    scored = room.catalogue.run(night.run_id)
    numbers = range(FINDINGS)
    with room.catalogue.session() as session:
        key = {level: [pseudonym(level, n) for n in numbers] for level in ("patient", "study", "series")}
        session.execute(insert(Patient), [{"patient_id": one, "draw": 0.5} for one in key["patient"]])
        session.execute(
            insert(Study), [{"study_id": key["study"][n], "patient_id": key["patient"][n]} for n in numbers]
        )
        about = [
            {"modality": ("MR", "CT")[n % 2], "attributes": {"body_part": ("HEAD", "CHEST")[n % 2]}} for n in (0, 1)
        ]
        rows = [{"series_id": key["series"][n], "study_id": key["study"][n], **about[n % 2]} for n in numbers]
        session.execute(insert(Series), rows)
    run_id = room.catalogue.start_run("score", scored.route, scored.folder)
    findings = []
    for n in numbers:
        ids = (key["series"][n], key["study"][n], key["patient"][n])
        evidence = (SliceScore(pseudonym("instance", n), 0, *ids, 1.0),)
        p = (n % 997 + 1) / 20_000
        findings.append(Finding(ids[1], ids[2], scored.route, 1 - p, p, 1240, "conformal", True, "fpr", evidence))
    room.catalogue.add_findings(run_id, findings, scored.sha256)
    room.catalogue.finish_run(run_id, sha256=scored.sha256)
    draw_reading_lists(room.catalogue, night.settings.review)


def log_in(client: httpx.Client, name: str) -> None:
    """Log in by the page; the cookies are Secure, and this client makes no exception for the loopback."""
    csrf = re.search(r'name="csrf" value="([^"]*)"', client.get("/login").text)[1]
    cookies = {"__Host-nightread-login": csrf}
    fields = {"name": name, "password": "a long enough passphrase", "csrf": csrf}
    answer = client.post("/login", data=fields, cookies=cookies)
    assert answer.status_code == 303, answer.text
    client.headers["cookie"] = answer.headers["set-cookie"].split(";")[0]


def test_fifty_reviewers_at_once(room: Any, night: Any, site: str, setup: Any, say: Any, pseudonym: Any) -> None:
    many_scans(room, night, READERS * EACH, pseudonym)
    for number in range(READERS):
        room.review.users.add(f"reader{number}", "reader", "a long enough passphrase", setup)
    signed, errors, times = [], [], []
    gate, door = threading.Barrier(READERS), threading.Semaphore(10)  # an address may have 30 log-ins under way

    def morning(number: int) -> None:
        try:
            with httpx.Client(base_url=site, timeout=120) as client:
                with door:
                    log_in(client, f"reader{number}")
                gate.wait()
                done = 0
                while done < EACH:
                    done += read_one(client, signed, times)
        except Exception as error:  # whatever it is, the test wants to see it
            errors.append(f"{type(error).__name__}: {error}")
            gate.abort()

    people = [threading.Thread(target=morning, args=(number,)) for number in range(READERS)]
    begun = time.perf_counter()
    for one in people:
        one.start()
    for one in people:
        one.join(600)
    took = time.perf_counter() - begun
    assert errors == []
    with room.catalogue.reading() as session:
        decided = session.scalars(select(Decision.finding_id)).all()
    assert len(signed) == READERS * EACH
    assert sorted(decided) == sorted(signed), "every signed decision is there, once"
    assert len(set(decided)) == len(decided), "nobody read what another had"
    assert room.review.decisions.verify().problems == ()
    assert room.review.audit.verify().problems == ()
    times.sort()
    median, p95 = (1000 * times[int(share * len(times))] for share in (0.5, 0.95))
    say(f"{READERS} reviewers, {EACH} decisions each, in {took:.0f} s: no error, none lost; a request took "
        f"{median:.0f} ms (median), {p95:.0f} ms (p95)")  # fmt: skip


def read_one(client: httpx.Client, signed: list[int], times: list[float]) -> int:
    """Take the first scan that nobody reads, and decide; return 1 where it was signed, 0 where somebody was faster."""

    def ask(method: str, path: str, **fields: Any) -> httpx.Response:
        begun = time.perf_counter()
        answer = client.request(method, path, headers={"accept": "text/html", "hx-request": "true"}, **fields)
        times.append(time.perf_counter() - begun)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
        return answer

    rows = re.findall(r'data-href="/scan/(\d+)', ask("GET", "/?state=new").text)
    if not rows:
        return 0
    chosen = rows[int(time.perf_counter_ns() // 1000) % min(len(rows), 20)]
    page = ask("GET", f"/scan/{chosen}").text
    if 'id="decide"' not in page or "Decisions so far" in page:  # somebody reads it, or has just read it
        return 0
    form = page.split('id="decide"')[1]
    fields = {name: re.search(rf'name="{name}" value="([^"]*)"', form)[1] for name in ("csrf", "seen", "token")}
    answer = ask("POST", f"/scan/{chosen}/decision", data={**fields, "outcome": "dismissed"})
    if answer.headers.get("x-decided") != "1":
        return 0
    signed.append(int(chosen))
    return 1


def many_scans(room: Any, night: Any, count: int, pseudonym: Callable[..., str]) -> None:
    """Enter scans that share one image, as many as fifty people need."""
    key = PixelStore(night.settings.store).put(np.arange(1024, dtype=np.uint16).reshape(1, 32, 32))
    scored = room.catalogue.run(night.run_id)
    header = InstanceAttributes(rows=32, columns=32, modality="MR", body_part="HEAD")
    findings = []
    with room.catalogue.session() as session:
        for number in range(count):
            ids = [pseudonym(level, number) for level in ("patient", "study", "series", "instance")]
            room.catalogue.add_instance(session, Ids(*ids), header, pixel_key=key)
            evidence = (SliceScore(ids[3], 0, ids[2], ids[1], ids[0], 1.0),)
            findings.append(Finding(ids[1], ids[0], scored.route, 1.0, 0.001, 99, "conformal", True, "fpr", evidence))
    run_id = room.catalogue.start_run("score", scored.route, scored.folder)
    room.catalogue.add_findings(run_id, findings, scored.sha256)
    room.catalogue.finish_run(run_id, sha256=scored.sha256)
    draw_reading_lists(room.catalogue, night.settings.review)
