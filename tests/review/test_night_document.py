"""The report of a night: one file without a network, what is read blind is not in it, and it reads aloud and prints."""

from __future__ import annotations

import re
import shutil
import zlib
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import ReadingEntry
from pipeline.data.catalogue.schema import RunRow, now
from pipeline.data.catalogue.watch_schema import AlertRow
from pipeline.errors import ConfigError, RejectionCode
from pipeline.review.hidden_studies import list_hidden_runs
from pipeline.review.night_document import write_night_document
from pipeline.review.night_facts import read_night_facts
from pipeline.review.night_pdf import write_pdf
from pipeline.review.save_night import save_night, track_night
from pipeline.stages.watch.nights import record_night
from pipeline.tracking.experiment import connect, find_page


@pytest.fixture
def site(scored: Any, tmp_path: Path) -> Settings:
    """A copy of the scored workspace, with a night that failed, a refusal and two alerts."""
    settings = Settings(workspace=tmp_path / "site", workers=1)
    shutil.copytree(scored.settings.workspace, settings.workspace, ignore=shutil.ignore_patterns("prefect", "pixels"))
    with record_night(settings, "nightly") as night:
        night.failures, night.summary = 1, {"errors": ["ConfigError"], "flagged": 2}
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        catalogue.add_rejection(session, "f" * 32, "file", RejectionCode.EMPTY_FILE, "The file is empty <0 bytes>.")
        for key in ("disk", "drift:phantom-mr"):
            session.add(AlertRow(key=key, severity="warning", sentence=f"It is {key}.", recovered_at=None))
    return settings


class Outline(HTMLParser):
    """What a screen reader goes by: headings, tables with their heads, pictures with names, and what is loaded."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_page(settings: Settings, day: date | None = None) -> str:
    with Catalogue.open(settings) as catalogue:
        return write_night_document(read_night_facts(catalogue, settings, day))


def test_the_page_says_the_night_and_loads_nothing(site: Settings, scored: Any) -> None:
    page = write_page(site)
    outline = Outline(page)
    for text in ("<b>54</b> files read", "<b>6</b> studies scored", "empty-file", "&lt;0 bytes&gt;", "It is disk."):
        assert text in page
    cells = [re.escape(f'<td class="short">{text}</td>') for text in ("nightly", "failed", "ConfigError")]
    assert re.search("{}.*{}{}".format(*cells), page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"url\(|@import|src=", page)
    assert [one for _, each in outline.tags if (one := each.get("href"))] == []
    assert scored.planted not in page and "/site" not in page


def test_the_page_can_be_read_aloud(site: Settings) -> None:
    outline = Outline(write_page(site))
    ids = [one["id"] for _, one in outline.tags if "id" in one]
    assert len(ids) == len(set(ids))
    assert outline.named("html") == [{"lang": "en"}] and len(outline.named("h1")) == 1
    assert all(one["aria-labelledby"] in ids for one in outline.named("section"))
    charts = outline.named("svg")
    assert len(charts) >= 3
    assert all(
        one["role"] == "img" and one["aria-labelledby"] in ids and one["aria-describedby"] in ids for one in charts
    )
    assert all(one.get("scope") == "col" for one in outline.named("th"))


def test_a_report_is_the_same_whether_a_blind_scan_was_flagged(site: Settings, scored: Any) -> None:
    def write() -> str:
        with Catalogue.open(site) as catalogue:
            facts = read_night_facts(catalogue, site)
        return write_night_document(replace(facts, written_at=now().replace(year=2026, month=1, day=1)))

    blind = write()
    assert "<b>?</b> flagged, held back" in blind and "It is drift" not in blind and "2 flagged" not in blind
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        summary = {**session.get_one(RunRow, scored.run_id).summary, "flagged": 1, "statement": "1 flagged"}
        session.get_one(RunRow, scored.run_id).summary = summary
    assert re.sub(r"\d\d:\d\d", "", write()) == re.sub(r"\d\d:\d\d", "", blind)
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        session.execute(update(ReadingEntry).values(blinded=False))
    page = write()
    assert "<b>1</b> flagged" in page and "It is drift:phantom-mr." in page and "1 flagged" in page


def test_runs_that_began_at_one_moment_have_their_own_results(site: Settings, scored: Any) -> None:
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        run = session.get_one(RunRow, scored.run_id)
        for name in ("b-second", "a-third"):
            about = {"studies": 0, "flagged": 0, "statement": f"It is {name}."}
            values = {"folder": run.folder, "sha256": run.sha256, "state": "done", "summary": about}
            session.add(RunRow(run_id=name, kind="score", route=f"route-{name}", started_at=run.started_at, **values))
    page = write_page(site)
    for name in ("b-second", "a-third"):
        assert re.search(rf"route-{name}</td>(?:<td[^>]*>[^<]*</td>){{2}}<td[^>]*>It is {name}\.", page)


def test_scans_that_a_run_lists_while_the_report_is_read_are_held_back(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = iter((frozenset(), list_hidden(site), list_hidden(site)))
    monkeypatch.setattr("pipeline.review.night_facts.list_hidden_runs", lambda session: next(listed))
    assert "<b>?</b> flagged, held back" in write_page(site)


def list_hidden(settings: Settings) -> frozenset[str]:
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return list_hidden_runs(session)


def test_objects_of_ours_that_came_back_are_not_counted(site: Settings) -> None:
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        catalogue.add_rejection(session, "e" * 32, "file", RejectionCode.MADE_HERE, "Nightread made it.")
    assert "made-here" not in write_page(site)


def test_a_day_without_events_is_a_page_too(site: Settings) -> None:
    with pytest.raises(ConfigError, match="has not come yet"):
        write_page(site, now().date() + timedelta(days=1))
    page = write_page(site, date(2001, 2, 3))
    assert "Night of Saturday 03 February 2001" in page and "<b>0</b> files read" in page
    assert "Nothing was scored on this day." in page


def test_it_is_saved_and_tracked(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(site)
    monkeypatch.setattr("pipeline.review.save_night.write_pdf", lambda page: b"%PDF-1.7")
    saved = save_night(site)
    assert saved.html.parent == site.workspace / "reports" and saved.pdf is not None
    page = find_page(site)
    run_id = track_night(site, saved)
    assert track_night(site, saved) == run_id, "one run of a day, however often its report is written"
    from mlflow import MlflowClient

    names = {one.path for one in MlflowClient().list_artifacts(run_id, "report")}
    assert names == {f"report/{saved.html.name}", f"report/{saved.pdf.name}"}
    assert find_page(site) == page, "MLflow still opens the models"


def need_weasyprint() -> None:
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"weasyprint (extra `pdf`) or its library Pango is not installed: {error}"[:200])


def test_the_pdf_is_a_document_of_a4_pages_with_tags(site: Settings) -> None:
    need_weasyprint()
    file = write_pdf(write_page(site))
    streams = [zlib.decompress(part) for part in re.findall(rb"FlateDecode.*?stream\n(.*?)\nendstream", file, re.S)]
    content = b"\n".join([file, *streams])
    assert content.startswith(b"%PDF-1.")
    assert b"/StructTreeRoot" in content and b"/Lang (en)" in content
    assert re.search(rb"/MediaBox \[0 0 595\.\d+ 841\.\d+\]", content)


@pytest.mark.parametrize(
    "address", ["https://elsewhere.example/a.png", "file:///etc/hostname", "data:image/gif;base64,R0"]
)
def test_the_pdf_opens_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_weasyprint()
    opened: list[Any] = []
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda self, *what, **_: opened.append(what))
    write_pdf(f'<html lang="en"><title>A</title><p>A<img alt="a" src="{address}"></html>')
    assert opened == []


@pytest.mark.parametrize(
    ("error", "what"),
    [(ImportError("weasyprint"), r"nightread\[pdf\]"), (OSError("cannot load library 'pango'"), "libpangoft2")],
)
def test_without_its_library_the_command_says_what_to_install(
    site: Settings, error: Exception, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import builtins

    original = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "weasyprint":
            raise error
        return original(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=what):
        write_pdf("<p>")
    call = ["-w", str(site.workspace), "report"]
    done = CliRunner().invoke(group, [*call, "--html", str(tmp_path / "n.html"), "--pdf", str(tmp_path / "n.pdf")])
    assert done.exit_code != 0 and "Install" in done.output
    assert (tmp_path / "n.html").is_file()
    assert "No PDF" in CliRunner().invoke(group, call).output
