"""Images from worse ones, with their originals as targets: a degradation, and the answers to it.

Every task with a target (denoising, super-resolution, inpainting, k-space recovery) states its degradations as
`Problem`s. Solving, judging, pictures and the question whether lesions survive are the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import iterate_batches
from pipeline.errors import ConfigError, EmptySelection
from pipeline.nn.rng import Rng, row_key
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import choose_real, choose_some
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.run.load_slices import dataset
from pipeline.types import Batch, SetName, SliceRef

AT_ONCE = 32  # images solved at once, and kept in one file

Degrade = Callable[[Batch, Rng], Batch]
Answer = Callable[[Batch, Rng], Tensor]


def stream_of(seed: int, ids: Sequence[str], problem: str) -> Rng:
    """Return the streams from which a problem degrades images: whoever knows them can repeat what was drawn."""
    return Rng.scoring(seed, ids).fork(problem)


def always(ref: SliceRef) -> bool:
    """Return True: most degradations take any slice."""
    return True


@dataclass(frozen=True, slots=True)
class Problem:
    """One degradation, and the answers to it.

    Attributes:
        name: readable, "noise 0.2".
        level: its strength, for curves.
        degrade: returns a batch whose `images` are worse, on the same grid; `condition` may say what is known of the
            degradation, as `Restorer.restore` takes it. A row depends on itself and its own stream.
        answers: by name; the first is the plainest baseline, the last is the model's.
        region: where errors count for PSNR, bool [B, 1, *spatial], of a degraded batch.
        takes: whether a slice can be degraded; others are left out.
    """

    name: str
    level: float
    degrade: Degrade
    answers: Mapping[str, Answer]
    region: Callable[[Batch], Tensor] = attrgetter("body")
    takes: Callable[[SliceRef], bool] = always

    @property
    def own(self) -> str:
        """Name of the model's answer."""
        return list(self.answers)[-1]

    def worsen(self, batch: Batch, seed: int) -> Batch:
        """Return the degraded batch, with the originals as `target`; the ids seed the rows."""
        return replace(self.degrade(batch, stream_of(seed, batch.ids, self.name)), target=batch.images)

    def answer(self, name: str, worse: Batch, seed: int) -> Tensor:
        """Return an answer to a degraded batch: float32 [B, C, *spatial], on the CPU."""
        return self.answers[name](worse, Rng.scoring(seed, worse.ids).fork(f"{self.name}, {name}")).float().cpu()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out images with their bodies in batches, whose ids are content addresses, and their references."""

    batches: tuple[Batch, ...]
    refs: tuple[SliceRef, ...]

    @property
    def patients(self) -> list[str]:
        """Pseudonym of each image's patient."""
        return [ref.patient_id for ref in self.refs]


@dataclass(slots=True)
class Solved:
    """A problem with its answers: [N, C, *spatial] each, in the order of the held-out images, and their CPU seconds."""

    problem: Problem
    target: Tensor
    region: Tensor
    answers: dict[str, Tensor]
    seconds: dict[str, float] = field(default_factory=dict)


def read_held_out(
    trained: TrainedModel,
    settings: Settings,
    sets: Sequence[SetName],
    count: int,
    seed: int = 0,
    takes: Callable[[SliceRef], bool] = always,
) -> HeldOut:
    """Read at most `count` normal slices that show a body and that `takes` takes, chosen by hash.

    Raises:
        ConfigError: the model sees volumes.
        EmptySelection: the sets have no normal slices, or none of them shows a body.
    """
    if trained.model.volumes is not None:
        raise ConfigError("A model of volumes has no answers for single slices yet. Name a model of slices.")
    with Catalogue.open(settings) as catalogue:
        real = choose_real(trained.run, settings, catalogue, sets)
        chosen = choose_some(replace(real, slices=tuple(filter(takes, real.slices))), count, seed)
    data = dataset(chosen, trained.run, settings, cache="none", whole=False)
    batches, refs = [], []
    for batch in iterate_batches(data, AT_ONCE):
        rows = [place for place, body in enumerate(batch.body) if bool(body.any())]
        taken = [data.ref(batch.ids[place]) for place in rows]
        if taken:
            ids, about = tuple(ref.content_id for ref in taken), tuple(batch.about[place] for place in rows)
            batches.append(Batch(batch.images[rows], batch.body[rows], ids, about))
            refs += taken
    if not refs:
        raise EmptySelection(f"None of {len(chosen.slices)} slices shows a body. Choose other sets.")
    return HeldOut(tuple(batches), tuple(refs))


def solve_all(
    problems: Sequence[Problem],
    held_out: HeldOut,
    seed: int,
    folder: TaskFolder,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Solved]:
    """Yield each problem with its answers; those that an earlier process computed are read from the task's folder."""
    done, total = 0, len(problems) * len(held_out.refs)
    for problem in problems:
        worse = [problem.worsen(batch, seed) for batch in held_out.batches]
        parts: dict[str, list[Tensor]] = {name: [] for name in problem.answers}
        seconds = dict.fromkeys(problem.answers, 0.0)
        for batch in worse:
            for name in problem.answers:
                images, cost = _answer(problem, name, batch, seed, folder)
                parts[name].append(images)
                seconds[name] += cost
            done += len(batch.ids)
            if on_progress is not None:
                on_progress(done, total)
        answers = {name: torch.cat(images) for name, images in parts.items()}
        target, region = (torch.cat(column) for column in zip(*map(_sides(problem), worse), strict=True))
        yield Solved(problem, target, region, answers, seconds)


def _sides(problem: Problem) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """Return a function that takes the targets and the region of a degraded batch."""

    def sides(worse: Batch) -> tuple[Tensor, Tensor]:
        return (worse.images if worse.target is None else worse.target), problem.region(worse)

    return sides


def _answer(problem: Problem, name: str, worse: Batch, seed: int, folder: TaskFolder) -> tuple[Tensor, float]:
    """Return one answer and its CPU seconds, from the task's folder if it is there."""
    place = f"{row_key(problem.name, name, *worse.ids):016x}"  # labels change, and with them the held-out images
    part = folder.read_part(place, 0)
    if part is None:
        start = time.process_time()
        images = problem.answer(name, worse, seed)
        part = images, time.process_time() - start
        folder.write_part(place, 0, *part)
    return part
