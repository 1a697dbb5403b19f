"""Gate of a route, from the normals that a run learns from: what nightly scoring asks before it scores."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import iterate_batches
from pipeline.detection.conformal import Unit
from pipeline.detection.domain_gate import DomainGate, GateConfig, fit_gate
from pipeline.errors import ConfigError, EmptySelection
from pipeline.nn.rng import row_key
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SetName

AT_ONCE = 64


def fit_route_gate(
    run: RunConfig, settings: Settings, config: GateConfig | None = None, most: int = 2000, seed: int = 0
) -> DomainGate:
    """Return a gate that was fitted on a run's training normals and calibrated on its validate normals.

    `save_gate` writes it, once it has a threshold. No label is read but that of the normals.

    Args:
        run: data and route; its method is not used.
        settings: the workspace.
        config: what the gate measures, and its false rejection rate.
        most: most slices of either set, chosen by hash.
        seed: of that choice.

    Raises:
        ConfigError: the run reads volumes.
        EmptySelection: a set has too few normal slices.
    """
    if run.data.volumes is not None:
        raise ConfigError("A gate sees slices, and this run reads volumes. Give a run without data.volumes.")
    learned, _ = _read(run, settings, "train", most, seed)
    held_out, owners = _read(run, settings, "validate", most, seed)
    images = {"normaliser": run.data.normaliser.model_dump(mode="json"), "volumes": None}
    gate = fit_gate(learned, config, route=run.data.route, images=images)
    scores = gate.score(held_out)
    return gate.calibrated(
        Unit(item, patient, float(score)) for (item, patient), score in zip(owners, scores, strict=True)
    )


def _read(
    run: RunConfig, settings: Settings, name: SetName, most: int, seed: int
) -> tuple[torch.Tensor, list[tuple[str, str]]]:
    """Return normal slices that show a body, [N, C, S, S], with the content id and patient of each."""
    with Catalogue.open(settings) as catalogue:
        chosen = choose(catalogue, run, settings, sets=(name,), labels=("normal",))
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(seed, ref.content_id))
    few = replace(chosen, slices=tuple(by_hash[:most]))
    data = dataset(few, run, settings, cache="none", whole=False)
    images, owners = [], []
    for batch in iterate_batches(data, AT_ONCE):
        rows = [row for row, body in enumerate(batch.body) if bool(body.any())]
        images.append(batch.images[rows].clone())
        refs = [data.ref(batch.ids[row]) for row in rows]
        owners += [(ref.content_id, ref.patient_id) for ref in refs]
    if not owners:
        raise EmptySelection(
            f"The set {name} has no normal slices of the route {run.data.route}, and a gate needs some. Label more "
            f"normal scans, or set data.splits.normals.{name} above 0.{chosen.left_out()}"
        )
    return torch.cat(images), owners
