"""The night takes in files that arrived over the network, without a command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flows.ingest import ingest
from flows.request import hold_request, read_roots


def test_received_files_are_ingested_without_a_command_and_growing_ones_are_not(
    phantom_night: Any, tmp_path: Path
) -> None:
    files = sorted(phantom_night.inbox.rglob("*.dcm"))
    for state, part in (("complete", files[:4]), ("open", files[4:5]), ("quarantine", files[5:])):
        folder = tmp_path / "inbox" / state / "study"
        folder.mkdir(parents=True)
        for number, file in enumerate(part):
            shutil.copy(file, folder / f"{number}.dcm")
    with hold_request(str(tmp_path), []) as request:
        (report,) = ingest(request, str(tmp_path))["reports"]
        (again,) = ingest(request, str(tmp_path))["reports"]
    assert (report["files"], report["added"]) == (4, 4)
    assert again["added"] == 0


def test_the_inbox_is_a_root_once_and_only_where_it_is(tmp_path: Path) -> None:
    received = str(tmp_path / "inbox" / "complete")
    with hold_request(str(tmp_path), ["/data/a"]) as request:
        assert read_roots(request, str(tmp_path)) == ["/data/a"]
        Path(received).mkdir(parents=True)
        assert read_roots(request, str(tmp_path)) == ["/data/a", received]
    for named in (received, str(tmp_path / "inbox"), str(tmp_path)):
        with hold_request(str(tmp_path), [named]) as request:
            assert read_roots(request, str(tmp_path)) == [named]
