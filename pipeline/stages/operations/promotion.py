"""Promotion of a training run's model to champion of its route, the model that the night uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import find_version, promote, read_aliases


@dataclass(frozen=True, slots=True)
class Promotion:
    """A model that became its route's champion, and the version that it replaced (None for the first)."""

    route: str
    run: str
    version: str
    replaced: str | None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """Return a sentence on the new champion and the version that it replaced."""
        replaced = f" in place of version {self.replaced}" if self.replaced not in (None, self.version) else ""
        return f"Version {self.version} ({self.run}) is the champion of {self.route}{replaced}."


def promote_run(settings: Settings, run: str) -> Promotion:
    """Make the newest registered model of a training run the champion of the run's route.

    Args:
        settings: settings of the workspace.
        run: the run's id, or an unambiguous prefix.

    Raises:
        ArtefactError: no run or several match; the run registered no model; the registry does not respond.
        ConfigError: the run learned from labelled patients in gate, so its figures there say nothing about others.
    """
    folder = RunFolder.find(settings, run)
    config = folder.read_config()
    if config.learns_from_gate:
        raise ConfigError(
            f"The run {folder.run_id} learned from labelled patients in gate, who decide about promotions, so it "
            "cannot become the champion. Train it with `labelled_in: [develop]`, or from normals alone, and "
            "promote that run."
        )
    route = config.data.route
    before, version = read_aliases(settings, route).get("champion"), find_version(settings, route, str(folder.path))
    promote(settings, route, version)
    return Promotion(route, folder.run_id, version, before)
