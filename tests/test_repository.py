"""The repository contains only our files, and nothing about the machine that it was made on."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_pipeline_and_flows_are_ours() -> None:
    # Packages of these names exist on the public index: an install that shadows ours must not pass unseen.
    import flows
    import pipeline

    assert Path(pipeline.__file__).parent == ROOT / "pipeline"
    assert Path(flows.__file__).parent == ROOT / "flows"


def test_nothing_names_where_it_was_made() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    words = ("/work" + "/", "/tmp" + "/w/", "." + "library")
    suspicious = [
        name
        for name in tracked
        if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".ipynb", ".cfg"}
        and any(word in (ROOT / name).read_text(errors="replace") for word in words)
    ]
    assert suspicious == []
