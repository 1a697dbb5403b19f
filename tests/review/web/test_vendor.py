"""Third-party files are as released, with their licences, and the browser loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[3] / "pipeline" / "review" / "web" / "static"
MANIFESTS = (STATIC / "vendor" / "vendor.json", Path(__file__).parent / "vendor" / "vendor.json")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=["shipped", "tests"])
def test_hashes_and_licences(manifest: Path) -> None:
    components = json.loads(manifest.read_text())["components"]
    named = {"vendor.json"}
    for item in components:
        for file, digest in ((item["file"], item["sha256"]), (item["licence_file"], item["licence_sha256"])):
            assert hashlib.sha256((manifest.parent / file).read_bytes()).hexdigest() == digest, file
            named.add(file)
        assert item["version"]
        assert item["source"]
    assert {file.name for file in manifest.parent.iterdir()} == named


def test_shipped_licences_allow_shipping() -> None:
    components = json.loads(MANIFESTS[0].read_text())["components"]
    assert {item["licence"] for item in components} <= {"MIT", "BSD-2-Clause", "0BSD", "Apache-2.0"}


def test_pages_ask_for_nothing_from_elsewhere_and_hold_no_inline_script() -> None:
    pages = sorted((STATIC.parent / "templates").glob("*.html"))
    assert len(pages) > 5
    for page in pages:
        text = page.read_text()
        assert not re.search(r"(src|href|action)=[\"']?(https?:)?//", text), page.name
        assert not re.search(r"\son[a-z]+=", text), page.name
        assert not re.search(r"\sstyle=|<style|hx-on|javascript:", text), page.name
        scripts = re.findall(r"<script\b[^>]*>", text)
        assert all("src=" in tag or 'type="application/json"' in tag for tag in scripts), page.name
