"""Stage `auto`: choose an ensemble by what a route's normal scans look like, train it, and weigh its members.

The result is an ordinary run of the method `ensemble`, which every later stage takes. Its folder also holds `auto.json`
(facts, choices, weights) and `auto.md` (the same in words); both are in MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble_config import EnsembleConfig, MemberConfig
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.auto.held_out_paint import Weighed, weigh
from pipeline.stages.auto.make_plan import make_plan
from pipeline.stages.auto.plan import Plan
from pipeline.stages.detect.build_ensemble import assemble
from pipeline.stages.detect.train import train, train_members
from pipeline.stages.run.auto_config import AutoConfig
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.training.processes import refuse_several
from pipeline.types import RunRef

Say = Callable[[str], None]


def train_run(
    config: RunConfig | AutoConfig,
    settings: Settings,
    again: bool = False,
    progress: bool = False,
    say: Say = lambda text: None,
) -> RunRef:
    """Train what a run's file describes: a method, an ensemble, or one that is chosen by the scans (`auto`)."""
    if isinstance(config, AutoConfig):
        return train_auto(config, settings, again, progress, say)
    return train(config, settings, again=again, progress=progress, say=say)


def train_auto(
    config: AutoConfig,
    settings: Settings,
    again: bool = False,
    progress: bool = False,
    say: Say = lambda text: None,
) -> RunRef:
    """Choose, train and weigh an ensemble for a route; like a trained run, it is not calibrated yet.

    The plan is kept, so that the same configuration and normals give the same run, finished or not, unless `again`.

    Args:
        config: the route, and how long its trainings may take together.
        settings: the workspace.
        again: look, choose and train again.
        progress: show a progress bar.
        say: receives what was chosen and why before training begins, and the weights after it.

    Raises:
        ConfigError: several processes were launched to train it.
        EmptySelection: the route has no scans.
        TooFewNormals: there are fewer normals than a detector needs.
        TrainingDiverged: NaN or infinity in a loss.
    """
    refuse_several("train auto")
    plan = make_plan(config, settings, again)
    say(plan.sentence())
    trained = train_members(plan.run, cast(EnsembleConfig, plan.run.method), settings, progress)
    weighed = _weigh(plan, trained, settings)
    say(weights_in_words(weighed))
    run = assemble(_weighted(trained, weighed), settings, again)
    _record(RunFolder.open(run), plan, weighed, settings)
    return run


def _weigh(plan: Plan, trained: RunConfig, settings: Settings) -> dict[str, Weighed]:
    """Weigh the trained members by held-out paint on validate normals."""
    members = cast(EnsembleConfig, trained.method).members
    detectors = {role: _member(settings, one) for role, one in zip(plan.trust, members, strict=True)}
    with Catalogue.open(settings) as catalogue:
        selection = choose(catalogue, trained, settings, sets=("validate",))
    return weigh(detectors, plan.trust, dataset(selection, trained, settings, cache="ram", whole=False))


def _member(settings: Settings, member: MemberConfig) -> Detector:
    folder = RunFolder.find(settings, str(member.run))
    return cast(Detector, load_detector(folder.detector, sha256=member.sha256))


def _weighted(trained: RunConfig, weighed: Mapping[str, Weighed]) -> RunConfig:
    method = cast(EnsembleConfig, trained.method)
    total = sum(one.weight for one in weighed.values())
    members = tuple(
        member.model_copy(update={"weight": round(one.weight / total, 4)})
        for member, one in zip(method.members, weighed.values(), strict=True)
        if one.weight
    )
    return trained.model_copy(update={"method": method.model_copy(update={"members": members})})


def weights_in_words(weighed: Mapping[str, Weighed]) -> str:
    """Return what each member makes of lesions that it never saw, and its share of the score."""
    total = sum(one.weight for one in weighed.values())
    lines = ["Weights from validate normals, clean and painted by another painter (AUROC), without labels of disease:"]
    for role, one in weighed.items():
        tells = ", ".join(f"{name} {value:.2f}" for name, value in one.auroc.items())
        weight = f"Weight {one.weight / total:.2f}" if one.weight else "Left out: that is hardly better than chance"
        lines.append(f"  {role}: {tells}. {weight}")
    return "\n".join(lines)


def _record(folder: RunFolder, plan: Plan, weighed: Mapping[str, Weighed], settings: Settings) -> None:
    """Write facts, choices and weights into the run folder and MLflow."""
    weights = {role: one.to_json() for role, one in weighed.items()}
    values: dict[str, Any] = {**plan.to_json(), "weights": weights}
    text = f"```\n{plan.sentence()}\n{weights_in_words(weighed)}\n```\n"
    folder.write("auto.json", values)
    folder.write_text("auto.md", text)
    config = folder.read_config()
    with track(
        settings, config.data.route, config.name, folder.read_tracked().get("run_id"), system_metrics=False
    ) as tracked:
        tracked.log_text(text, "auto.md")
        tracked.log_tags({"chosen_by": "auto"})
        tracked.log_metrics({f"weight/{role}": one.weight for role, one in weighed.items()})
