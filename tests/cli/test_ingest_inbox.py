"""`nightread ingest` without a path reads what arrived over the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pipeline.cli import group
from pipeline.errors import ConfigError


def test_it_reads_the_complete_studies_of_the_inbox(phantom_night: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    none = CliRunner().invoke(group, ["-w", str(workspace), "ingest"])
    assert none.exit_code == ConfigError.exit_code and "nightread listen" in none.output
    files = sorted(phantom_night.inbox.rglob("*.dcm"))[:3]
    for number, (state, file) in enumerate(zip(("complete", "complete", "open"), files, strict=True)):
        (workspace / "inbox" / state / "study").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, workspace / "inbox" / state / "study" / f"{number}.dcm")
    done = CliRunner().invoke(group, ["-w", str(workspace), "ingest", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["added"] == 2
