"""Objects that a destination did not take are an alert until they are sent."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.exports import find_unsent_runs, note_export
from pipeline.data.catalogue.schema import ExportRow, now
from pipeline.stages.watch.site_config import SiteConfig, WatchConfig
from pipeline.stages.watch.troubles import find_conditions

PACS = "ARCHIVE@pacs.example:104"
SITE = SiteConfig(watch=WatchConfig(least_free_gib=0))


def test_objects_that_were_not_taken_are_one_condition_until_they_are_sent(scored: Any, tmp_path: Path) -> None:
    shutil.copytree(scored.settings.workspace, tmp_path / "site")
    settings = Settings(workspace=tmp_path / "site")
    before = {one.key for one in find_conditions(settings, SITE, [])}
    with Catalogue.open(settings) as catalogue:
        finding = catalogue.list_findings()[0]
        for number, state in enumerate(("failed", "pending", "pending", "sent")):
            note_export(catalogue, finding, "sr", f"1.2.{number}", PACS, state)
        with catalogue.session() as session:  # its process has died since, unlike that of the other one
            died = update(ExportRow).where(ExportRow.object_uid == "1.2.1")
            session.execute(died.values(changed_at=now() - timedelta(hours=1)))
    (condition,) = (one for one in find_conditions(settings, SITE, []) if one.key not in before)
    assert (condition.key, condition.severity) == (f"unsent:{PACS}", "warning")
    assert "2 objects" in condition.sentence
    assert f"nightread push {finding.run_id} --to {PACS}" in condition.sentence
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ExportRow).values(state="sent"))
    assert {one.key for one in find_conditions(settings, SITE, [])} == before


def test_runs_with_an_unsent_finding_are_listed_until_all_their_objects_are_sent(scored: Any, tmp_path: Path) -> None:
    shutil.copytree(scored.settings.workspace, tmp_path / "site")
    with Catalogue.open(Settings(workspace=tmp_path / "site")) as catalogue:
        flagged = [finding for finding in catalogue.list_findings() if finding.flagged]
        runs = list(dict.fromkeys(finding.run_id for finding in flagged))
        assert flagged and set(find_unsent_runs(catalogue)) == set(runs)
        for number, finding in enumerate(flagged):
            note_export(catalogue, finding, "sr", f"1.3.{number}", PACS, "sent")
        assert find_unsent_runs(catalogue) == []
        note_export(catalogue, flagged[0], "ko", "1.4.0", PACS, "failed")
        assert find_unsent_runs(catalogue) == [flagged[0].run_id]
