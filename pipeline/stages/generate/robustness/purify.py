"""Task `purify`: attacked images, purified by a diffusion model (Nie et al., arXiv:2205.07460), beside plain filters.

Two things are attacked: a classifier of what images show, and a detector's own score. Each defence is measured without
an attack, under one that does not know it, and under one that does and goes through it (`pipeline.evaluation.attacks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from pipeline.config import Settings
from pipeline.evaluation.robustness import RobustnessRow, areas, draw_times, mean_shares
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.restoration.lesion_survival import Watch
from pipeline.stages.generate.robustness.attack_defences import ATTACKS, Attacked, attack_all, purified_examples
from pipeline.stages.generate.robustness.defences import NOTHING, NamedDefence, make_defences, require_purifier
from pipeline.stages.generate.robustness.robustness_tasks import PurifyTask
from pipeline.stages.generate.robustness.victims import Victim, open_classifier, open_detector
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, find_run, train_for

MAGNIFIED = 8  # times that the sheet enlarges an attack's change

OnProgress = Callable[[int, int], None]


def run_purify(
    config: PurifyTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Attack, purify, and report what is left of accuracy and AUROC; an interrupted task continues.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (images attacked, images to attack) of each victim.

    Raises:
        ConfigError: the method cannot purify, it sees volumes, or the detector sees other images or whole series.
        ArtefactError: the detector's run is missing or not calibrated.
        EmptySelection: a set lacks the images that are needed.
    """
    watch = None if config.detector is None else Watch.open(config.detector, find_run(config, settings), settings)
    trained = train_for(config, settings, require_purifier, progress)
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        defences = make_defences(trained.model.method, config)
        attacked = [
            attack_all(victim, defences, config.attack, config.seed, folder, on_progress)
            for victim in _open_victims(config, trained, watch, settings)
        ]
        rows = [row for one in attacked for row in rows_of(one, defences, watch)]
        _draw(config, trained, attacked[0], defences, folder, settings)
        if len(config.times) > 1:
            save_png(draw_times([row for row in rows if row.measure == rows[0].measure]), folder.path / "sweep.png")
        metrics = _metrics(rows)
        report = TaskReport(
            folder, _tables(rows), metrics, tuple(row.model_dump(mode="json") for row in rows), tuple(_warn(rows))
        )
        report.publish(config, settings)
        summary |= metrics
    return report


def _open_victims(
    config: PurifyTask, trained: TrainedModel, watch: Watch | None, settings: Settings
) -> Iterator[Victim]:
    if config.classes:
        yield open_classifier(config, trained, settings)
    if watch is not None:
        yield open_detector(config, watch, settings)


def rows_of(attacked: Attacked, defences: Sequence[NamedDefence], watch: Watch | None) -> Iterator[RobustnessRow]:
    """Yield one row per measure and defence: accuracy; or AUROC, and shares of slices above the threshold."""
    patients, values = attacked.victim.images.patients, attacked.values
    keys = {f"{defence}, {kind}": values[defence, kind] for defence, kind in values}
    if attacked.victim.name == "classifier":
        measured = {"accuracy": mean_shares(keys, patients)}
    else:
        abnormal = np.array([ref.label == "abnormal" for ref in attacked.victim.images.refs])
        measured = {"AUROC": areas(keys, abnormal, patients)}
        if watch is not None:
            above = {name: column > watch.threshold.value for name, column in keys.items()}
            for title, chosen in (("lesions above threshold", abnormal), ("normals above threshold", ~abnormal)):
                owners = [one for one, taken in zip(patients, chosen, strict=True) if taken]
                measured[title] = mean_shares({name: column[chosen] for name, column in above.items()}, owners)
    for measure, estimates in measured.items():
        for one in defences:
            clean, unaware, adaptive = (estimates[f"{one.name}, {kind}"] for kind in ATTACKS)
            yield RobustnessRow(
                victim=attacked.victim.name, defence=one.name, measure=measure, clean=clean, unaware=unaware,
                adaptive=adaptive, seconds_per_image=attacked.seconds[one.name], time=one.time,
            )  # fmt: skip


def _tables(rows: Sequence[RobustnessRow]) -> str:
    """Return one table per measure."""
    measures = list(dict.fromkeys((row.victim, row.measure) for row in rows))
    return "\n\n".join(
        f"{victim}: {measure}\n\n"
        + table_of([_line(row) for row in rows if (row.victim, row.measure) == (victim, measure)])
        for victim, measure in measures
    )


def _line(row: RobustnessRow) -> dict[str, str]:
    return {
        "defence": row.defence,
        "clean": row.clean.text(),
        "attack that does not know it": row.unaware.text(),
        "adaptive attack": row.adaptive.text(),
        "CPU ms per image": f"{1000 * row.seconds_per_image:.2g}",
    }


def _metrics(rows: Sequence[RobustnessRow]) -> dict[str, float]:
    """Return, for each measure, what is left without a defence and with the purification that holds best."""
    metrics: dict[str, float] = {}
    for measure in dict.fromkeys(row.measure for row in rows if row.measure in ("accuracy", "AUROC")):
        own = [row for row in rows if row.measure == measure]
        best = max((row for row in own if row.time is not None), key=lambda row: row.adaptive.value)
        name = measure.lower()
        metrics |= {f"{name}_adaptive": best.adaptive.value, f"{name}_unaware": best.unaware.value}
        metrics |= {f"{name}_purified": best.clean.value, f"{name}_time": best.time or 0.0}
        metrics |= {f"{name}_clean": own[0].clean.value, f"{name}_attacked": own[0].unaware.value}
    return metrics


def _warn(rows: Sequence[RobustnessRow]) -> Iterator[str]:
    """Yield a sentence for purification that an adaptive attack undoes, or that loses to a plain filter."""
    for measure in dict.fromkeys(row.measure for row in rows if row.measure in ("accuracy", "AUROC")):
        own = [row for row in rows if row.measure == measure]
        best = max((row for row in own if row.time is not None), key=lambda row: row.adaptive.value)
        plain = max((row for row in own if row.time is None), key=lambda row: row.adaptive.value)
        if best.unaware.value - best.adaptive.value > 0.1:
            yield (
                f"{best.defence}: {measure} of the {best.victim} is {best.unaware.text()} under an attack that does "
                f"not know it, and {best.adaptive.text()} under one that does. Only the second number protects."
            )
        if own[0].clean.value - best.clean.value > 0.1:
            yield (
                f"{best.defence} costs much where nothing was attacked: {measure} of the {best.victim} is "
                f"{best.clean.text()} instead of {own[0].clean.text()}."
            )
        if plain.adaptive.value >= best.adaptive.value:
            yield (
                f"Purification does not beat {plain.defence} under adaptive attack: {measure} of the {best.victim} "
                f"{best.adaptive.text()} against {plain.adaptive.text()}."
            )


def _draw(
    config: PurifyTask,
    trained: TrainedModel,
    attacked: Attacked,
    defences: Sequence[NamedDefence],
    folder: TaskFolder,
    settings: Settings,
) -> None:
    """Draw some images, attacked, the change enlarged, and each purified."""
    images = attacked.victim.images
    places = [place for place, ref in enumerate(images.refs) if may_show(ref, settings)][:COLUMNS]
    originals = torch.cat([batch.images for batch in images.batches])
    worse = attacked.images[NOTHING]
    change = MAGNIFIED * (worse - originals)
    strips = [
        Strip("Held out", to_pixels(originals[places])),
        Strip(f"Attacked: at most {127.5 * config.attack.epsilon:.0f} of 255 grey levels", to_pixels(worse[places])),
        Strip(f"The change, enlarged {MAGNIFIED} times", to_pixels(change[places].clamp(-1, 1))),
    ]
    for one in defences[1:]:
        made = [to_pixels(x) for x in purified_examples(images.batches, worse, places, one, config.seed)]
        strips.append(Strip(f"Attacked, then {one.name}", np.concatenate(made)))
    if places:
        save_png(draw_sheet(strips, f"{config.name}: {trained.run.method.name}"), folder.sheet)
