"""The documentation builds strictly without a network, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="mkdocs (extra `docs`) is not installed")

pytestmark = pytest.mark.slow  # about 20 seconds of CPU time: the library is read by mkdocstrings
ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"  # the discard port: whoever asks for a page gets no answer
LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "use": "href"}


class Page(HTMLParser):
    """The files that a page loads, the links that leave it, and the anchors that others may link to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the links and anchors of one tag."""
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        if (name := LOADING.get(tag)) and (place := values.get(name)) and values.get("rel") != "canonical":
            self.loads.append(place)
        if tag == "a" and (place := values.get("href")):
            self.links.append(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the site as it was built."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    proxies = {name: NOWHERE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    environment = {**os.environ, **proxies, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file: Page(file) for file in sorted(folder.rglob("*.html"))}


def test_nothing_is_loaded_from_elsewhere(site: dict[Path, Page]) -> None:
    assert len(site) > 60
    loads = [(file.name, place) for file, page in site.items() for place in page.loads]
    assert len(loads) > len(site)
    assert [load for load in loads if urlsplit(load[1]).scheme not in ("", "data") or load[1].startswith("//")] == []


def test_styles_load_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    folder = next(iter(site)).parents[0]
    while not (folder / "sitemap.xml").exists() and not (folder / "search").exists():
        folder = folder.parent
    styles = list(folder.rglob("*.css"))
    assert styles
    remote = [
        (f.name, url)
        for f in styles
        for url in re.findall(r"(?:url\(|@import )[\"']?(https?://[^)\"']+)", f.read_text())
    ]
    assert remote == []


def test_links_and_their_anchors_resolve(site: dict[Path, Page]) -> None:
    broken = []
    for file, page in site.items():
        if file.name == "404.html":  # its links start at the root of a server
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = site.get(target)
            if not target.exists() or (there and parts.fragment and unquote(parts.fragment) not in there.anchors):
                broken.append(f"{file.name}: {link}")
    assert broken == []
