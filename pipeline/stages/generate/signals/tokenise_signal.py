"""Task `tokenise-signal`: recordings in discrete units of a codec, beside k-means, judged against the truth.

Speech (arXiv:2005.09409): do the units tell phonemes apart across speakers (ABX), at how many bits per second, do they
agree with phonemes (purity), do they say who speaks, and can an utterance be said again in another speaker's style?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.normalise import SignalRange
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.abx import Spoken, abx_error, draw_triples
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.style import save_png
from pipeline.evaluation.unit_quality import UnitQuality, measure_units
from pipeline.methods.vq_vae import VectorQuantisedAutoencoder
from pipeline.stages.generate.signals.restyle_speech import Conversion, Voices, judge_conversion
from pipeline.stages.generate.signals.signal_sheet import draw_units
from pipeline.stages.generate.signals.signal_tasks import TokeniseTask
from pipeline.stages.generate.signals.signal_truth import Truth, frames_of, read_truth, units_by_frame
from pipeline.stages.generate.signals.signal_units import Written, require_signals, write_all
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import Slices, choose_real, choose_some, read_real
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, find_run, train_for

SHORTEST = 2  # units that a stretch must last to be compared


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One representation: its ABX error, and the quality of its units, None where it is continuous."""

    name: str
    abx: Estimate
    units: UnitQuality | None


def run_tokenise(config: TokeniseTask, settings: Settings, progress: bool = False) -> TaskReport:
    """Train the codec if it is not trained yet, write held-out recordings in its units, judge, draw, and log.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.

    Raises:
        ConfigError: the method does not write signals in units, the run's data are images, or the truth is not valid.
        EmptySelection: the held-out recordings have no truth, or too few speakers.
    """
    normaliser = find_run(config, settings).data.normaliser
    if not isinstance(normaliser, SignalRange):
        raise ConfigError(
            f"The run's normaliser is {normaliser.kind}, which reads images. Choose one of kind signal, and its route."
        )
    truth = read_truth(config.truth, settings)
    trained = train_for(config, settings, require_signals, progress)
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        report = _judge(config, trained, normaliser, truth, folder, settings)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _judge(
    config: TokeniseTask, trained: TrainedModel, normaliser: SignalRange, truth: Truth, folder: TaskFolder,
    settings: Settings,
) -> TaskReport:  # fmt: skip
    method = cast(VectorQuantisedAutoencoder, trained.model.method)
    with Catalogue.open(settings) as catalogue:
        chosen = [choose_real(trained.run, settings, catalogue, sets) for sets in (("train",), config.of)]
    learned, slices = (
        read_real(choose_some(part, config.count, config.seed), trained.run, settings, trained.model) for part in chosen
    )
    _require_truth(slices, truth)
    written = write_all(method, learned.images, slices.images, normaliser.samples, normaliser.rate_hz, config.seed)
    rows = _rows(written, slices, truth, config)
    units = [
        units_by_frame(truth.get(ref.instance_id, ()), normaliser.rate_hz, normaliser.samples) for ref in slices.refs
    ]
    voices = Voices(slices.images, slices.patients, units, normaliser.samples, normaliser.rows)
    conversions = judge_conversion(method, voices, config.seed) if method.config.style else []
    save_png(draw_units(method, voices, written[-1], config.name), folder.sheet)
    tables = [_unit_table(rows), *([_conversion_table(conversions)] if conversions else [])]
    return TaskReport(folder, "\n\n".join(tables), _metrics(rows, conversions), _json(rows, conversions), _warn(rows))


def _require_truth(slices: Slices, truth: Truth) -> None:
    if not any(ref.instance_id in truth for ref in slices.refs):
        raise EmptySelection(
            f"None of {len(slices.refs)} held-out recordings is in the truth, so their units cannot be judged. Check "
            "its SOPInstanceUID, and that it belongs to this workspace."
        )


def _rows(written: Sequence[Written], slices: Slices, truth: Truth, config: TokeniseTask) -> list[UnitRow]:
    count, rate = written[0].vectors.shape[1], written[0].rate_hz
    places, spoken = [], []
    for place, ref in enumerate(slices.refs):
        for stretch in truth.get(ref.instance_id, ()):
            part = frames_of(stretch, rate, count)
            if part.stop - part.start >= SHORTEST:
                places.append((place, part))
                spoken.append(Spoken(stretch.unit, ref.patient_id))
    triples = draw_triples(spoken, config.triples, config.seed)
    named = [units_by_frame(truth.get(ref.instance_id, ()), rate, count) for ref in slices.refs]
    inside = np.array([[bool(unit) for unit in row] for row in named])
    flat = [unit for row in named for unit in row if unit]
    speakers = np.repeat(slices.patients, count).reshape(-1, count)[inside].tolist()
    return [
        UnitRow(
            one.name,
            abx_error([one.vectors[place, part] for place, part in places], spoken, triples),
            None if one.units is None else measure_units(one.units[inside], flat, speakers, one.rate_hz),
        )
        for one in written
    ]


def _unit_table(rows: Sequence[UnitRow]) -> str:
    headers = ["representation", "ABX error across speakers", "bit/s", "units in use", "purity", "says who speaks"]
    return markdown_table(headers, [[row.name, row.abx.text(), *_cells(row.units)] for row in rows])


def _cells(units: UnitQuality | None) -> list[str]:
    if units is None:
        return ["", "", "", ""]
    return [
        f"{units.bits_per_second:.0f}", f"{units.perplexity:.0f}", f"{units.purity:.3f}", f"{units.speaker_share:.3f}"
    ]  # fmt: skip


def _conversion_table(rows: Sequence[Conversion]) -> str:
    headers = ["converted by", "sounds like the target", "says the same phonemes"]
    return markdown_table(headers, [[row.name, f"{row.like_target:.3f}", f"{row.same_phoneme:.3f}"] for row in rows])


def _metrics(rows: Sequence[UnitRow], conversions: Sequence[Conversion]) -> dict[str, float]:
    own = rows[-1]
    best = min((row for row in rows[:-1] if row.units is not None), key=lambda row: row.abx.value)
    quality = cast(UnitQuality, own.units)
    metrics = {
        "abx": own.abx.value,
        "abx_best_k_means": best.abx.value,
        "bits_per_second": quality.bits_per_second,
        "perplexity": quality.perplexity,
        "purity": quality.purity,
    }
    for row in conversions[2:3]:
        metrics |= {"like_target": row.like_target, "same_phoneme": row.same_phoneme}
    return metrics


def _json(rows: Sequence[UnitRow], conversions: Sequence[Conversion]) -> tuple[dict[str, object], ...]:
    units = [
        {"representation": row.name, "abx": row.abx.model_dump(mode="json")}
        | ({} if row.units is None else {name: getattr(row.units, name) for name in row.units.__dataclass_fields__})
        for row in rows
    ]
    judged = [
        {"converted_by": one.name, "like_target": one.like_target, "same_phoneme": one.same_phoneme}
        for one in conversions
    ]
    return (*units, *judged)


def _warn(rows: Sequence[UnitRow]) -> tuple[str, ...]:
    own = rows[-1]
    better = [row for row in rows[:-1] if row.units is not None and row.abx.value <= own.abx.value]
    return tuple(
        f"{row.name} tells phonemes apart as well as {own.name}, or better: ABX error {row.abx.value:.3f} against "
        f"{own.abx.value:.3f}."
        for row in better
    )
