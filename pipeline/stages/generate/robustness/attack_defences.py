"""Attack what decides about images, once without knowing the defence and once knowing it, and ask it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.attacks import AttackConfig, attack, behind, expected
from pipeline.nn.rng import Rng, row_key
from pipeline.stages.generate.robustness.defences import NOTHING, NamedDefence
from pipeline.stages.generate.robustness.victims import Victim
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.types import Batch

ATTACKS = ("clean", "unaware", "adaptive")

OnProgress = Callable[[int, int], None]


@dataclass(slots=True)
class Attacked:
    """What a victim said of images, by defence and attack.

    Attributes:
        victim: that was attacked.
        values: float64 [N] by defence and attack: 1 where the class is right, or the score. Under an adaptive attack,
            each image counts by the worse of that attack and the one that does not know the defence.
        images: attacked ones by the defence that the attack knew, [N, C, H, W].
        seconds: CPU seconds per image of each defence.
    """

    victim: Victim
    values: dict[tuple[str, str], np.ndarray]
    images: dict[str, Tensor]
    seconds: dict[str, float] = field(default_factory=dict)


def attack_all(
    victim: Victim,
    defences: Sequence[NamedDefence],
    config: AttackConfig,
    seed: int,
    folder: TaskFolder,
    on_progress: OnProgress | None = None,
) -> Attacked:
    """Attack every image of a victim before every defence; attacked images that an earlier process made are read.

    Args:
        victim: classifier or detector.
        defences: the first does nothing.
        config: strength and effort.
        seed: of the attacks and of the defences' noise.
        folder: of the task, where attacked images are kept.
        on_progress: called with (images attacked, images to attack).
    """
    values: dict[tuple[str, str], list[Tensor]] = {(one.name, kind): [] for one in defences for kind in ATTACKS}
    images: dict[str, list[Tensor]] = {one.name: [] for one in defences}
    seconds = dict.fromkeys(images, 0.0)
    count, total = 0, len(defences) * len(victim.images.refs)
    for batch in victim.images.batches:
        unaware = _attacked(victim, batch, defences[0], config, seed, folder)
        for one in defences:
            adaptive = _attacked(victim, batch, one, config, seed, folder) if one.name != NOTHING else unaware
            images[one.name].append(adaptive)
            began = time.process_time()
            clean = _judged(victim, batch, batch.images, one, seed, "clean")
            seconds[one.name] += time.process_time() - began
            weak = _judged(victim, batch, unaware, one, seed, "unaware")
            strong = _judged(victim, batch, adaptive, one, seed, "adaptive")
            worst = torch.where(victim.upwards(batch), torch.maximum(weak, strong), torch.minimum(weak, strong))
            for kind, value in zip(ATTACKS, (clean, weak, worst), strict=True):
                values[one.name, kind].append(value)
            count += len(batch.ids)
            if on_progress is not None:
                on_progress(count, total)
    least = seconds[NOTHING]
    return Attacked(
        victim,
        {key: torch.cat(parts).numpy() for key, parts in values.items()},
        {name: torch.cat(parts) for name, parts in images.items()},
        {name: max(spent - least, 0.0) / len(victim.images.refs) for name, spent in seconds.items()},
    )


def _attacked(
    victim: Victim, batch: Batch, defence: NamedDefence, config: AttackConfig, seed: int, folder: TaskFolder
) -> Tensor:
    place = f"{row_key(victim.name, defence.name, *batch.ids):016x}"
    part = folder.read_part(place, 0)
    if part is None:
        began = time.process_time()
        objective = behind(victim.objective(batch), defence.attackable)
        objective = expected(objective, config.draws) if defence.random else objective
        rng = Rng.scoring(seed, batch.ids).fork(f"attack on {victim.name}, {defence.name}")
        part = attack(objective, batch.images, rng, config), time.process_time() - began
        folder.write_part(place, 0, *part)
    return part[0]


def _judged(victim: Victim, batch: Batch, x: Tensor, defence: NamedDefence, seed: int, kind: str) -> Tensor:
    """Return what the victim says of images behind a defence, whose noise no attack has seen."""
    rng = Rng.scoring(seed, batch.ids).fork(f"{victim.name}, {defence.name}, {kind}")
    with torch.no_grad():
        return victim.judge(batch, defence.apply(x, rng))


def purified_examples(
    batches: Sequence[Batch], images: Tensor, places: Sequence[int], defence: NamedDefence, seed: int
) -> Iterator[Tensor]:
    """Yield some images behind a defence, [1, C, H, W] each."""
    ids = [item for batch in batches for item in batch.ids]
    for place in places:
        rng = Rng.scoring(seed, [ids[place]]).fork("example")
        with torch.no_grad():
            yield defence.apply(images[place : place + 1], rng)
