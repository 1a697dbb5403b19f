"""The champion that a night can use: the present one, or the last good one where its files are missing or damaged."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.notices import Severity, update_notices
from pipeline.data.catalogue.promotion_records import earlier_champions, list_promotions
from pipeline.detection.detector_file import check_detector
from pipeline.errors import ArtefactError
from pipeline.stages.run.route_gate import load_gate_of_run
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import find_champion
from pipeline.types import RunRef


def find_usable_champion(settings: Settings, route: str) -> RunRef | None:
    """Return the champion of a route, or the last good one before it if it cannot be loaded.

    A notice `champion:ROUTE` is raised while the champion cannot be loaded, and cleared afterwards. Every byte of the
    detector and its models is read. Without a good one the champion is returned all the same: scoring then reports why
    it fails, and the other routes go on.

    Raises:
        ArtefactError: the registry does not respond.
    """
    champion = find_champion(settings, route)
    if champion is None:
        return None
    key = f"champion:{route}"
    reason = _find_damage(champion)
    with Catalogue.open(settings) as catalogue:
        if not reason:
            update_notices(catalogue, key, {})
            return champion
        earlier = earlier_champions(list_promotions(catalogue, route), champion.sha256, with_rolled_back=True)
        candidates = (RunRef(str(settings.runs / one.run), one.sha256) for one in earlier)
        good = next((run for run in candidates if not _find_damage(run)), None)
        notice: tuple[Severity, str] = ("critical", _sentence(route, champion, reason, good))
        update_notices(catalogue, key, {key: notice})
    return good or champion


def _find_damage(run: RunRef) -> str:
    """Return why a run's detector cannot be used; "" if it can."""
    try:
        folder = RunFolder.open(run)
        check_detector(folder.detector, run.sha256)
        load_gate_of_run(folder)
    except ArtefactError as error:
        return str(error)
    return ""


def _sentence(route: str, champion: RunRef, reason: str, good: RunRef | None) -> str:
    instead = (
        "There is no earlier champion that could score instead, so the route is not scored."
        if good is None
        else f"The last good one, {Path(good.path).name}, scores instead."
    )
    return (
        f"The champion of {route}, {Path(champion.path).name}, cannot be loaded. {instead} {reason} Restore its folder "
        f"from a backup, train it again, or move back for good: nightread rollback {route} --approve NAME --why TEXT"
    )
