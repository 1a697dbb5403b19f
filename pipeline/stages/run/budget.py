"""Record how much of its budget of images a training used, and say so where its cap of CPU time ended it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.stages.run.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.training.config import TrainingConfig
    from pipeline.training.fitting import FitResult

BUDGET = "budget.json"
CUT_SHORT = "cut short by its cap"


def write_budget(folder: RunFolder, config: TrainingConfig, result: FitResult) -> None:
    """Write what a training was to see, what it saw, and why it ended."""
    seen = {"images_seen": result.images_seen, "stopped": result.stopped}
    folder.write(BUDGET, {"images": config.images, "max_seconds": config.max_seconds, **seen})


def describe_cut(folder: RunFolder) -> str:
    """Return a sentence on a training that its cap ended early; "" for any other, or where nothing is recorded.

    The number of images is the budget that anybody can repeat. The cap is a safety net, which a busy machine reaches
    sooner.

    Raises:
        ArtefactError: the record is damaged.
    """
    if not (folder.path / BUDGET).is_file():
        return ""
    budget = folder.read(BUDGET)
    if budget["stopped"] != "seconds":
        return ""
    seen, asked = (f"{budget[name]:,}".replace(",", " ") for name in ("images_seen", "images"))
    return (
        f"Cut short: the cap of {budget['max_seconds']:g} CPU seconds (training.max_seconds) ended the training after "
        f"{seen} of {asked} images, so it learned less than its budget. Raise the cap, or lower training.images."
    )


def list_cuts(folder: RunFolder) -> list[str]:
    """Return a sentence on the run's training, or on that of each member of an ensemble, that its cap ended early.

    Raises:
        ArtefactError: a record is damaged.
    """
    members = [str(one.run) for one in getattr(folder.read_config().method, "members", ()) if one.run is not None]
    cuts = {"": describe_cut(folder)}
    cuts |= {f"{run}: ": describe_cut(RunFolder(folder.path.parent / run)) for run in members}
    return [f"{owner}{cut}" for owner, cut in cuts.items() if cut]
