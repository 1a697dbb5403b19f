"""Parts that the notebooks of the course share: phantom images, a short training, sheets of pictures, source text."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from torch import Tensor

from pipeline.data.images.intensity import CTWindow, FixedRange, MRPercentile, RobustRange
from pipeline.data.images.normalise import Normaliser, Plane
from pipeline.dicom.phantom import make_patient
from pipeline.methods.base import Method
from pipeline.methods.method_registry import build_method, parse_method
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.training.order import collate

torch.set_num_threads(1)
SIZE = 32
IMAGES = int(os.environ.get("NIGHTREAD_LESSON_IMAGES", "8000"))  # images of a training, counting repetitions
QUICK = IMAGES < 1000  # a trial of the notebook itself: its pictures mean nothing
PATIENTS = 48 if QUICK else 1200
NORMALISERS = {
    "MR": Normaliser(MRPercentile(image_size=SIZE)),
    "CT": Normaliser(CTWindow(image_size=SIZE)),
    "CR": Normaliser(RobustRange(image_size=SIZE)),
    "US": Normaliser(FixedRange(image_size=SIZE, low=0, high=255)),
}
KINDS = tuple(NORMALISERS)


class Phantoms:
    """Invented patients, one image each, of the kinds in turn: a data set for the training loop.

    Args:
        count: patients.
        first: number of the first one; another range gives other patients.
        kinds: modalities among MR (head), CT (abdomen), CR (chest) and US (breast).
        lesion: of every patient; None for healthy ones.
    """

    def __init__(self, count: int, first: int = 0, kinds: Sequence[str] = KINDS, lesion: Any = None) -> None:
        self.kinds = [kinds[i % len(kinds)] for i in range(count)]
        self.items = [_draw(first + i, kind, lesion) for i, kind in enumerate(self.kinds)]
        self.images = torch.stack([item["image"] for item in self.items])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def _draw(seed: int, kind: Any, lesion: Any) -> dict[str, Any]:
    grade = None if lesion is None else 3
    patient = make_patient(seed, kind, lesion, size=SIZE, grade=grade, callipers="none")
    one = NORMALISERS[kind].series([Plane(patient.physical[0])])[0]
    image, body = torch.from_numpy(one.image), torch.from_numpy(one.body)
    return {"image": image, "body": body, "id": f"{kind} {seed}", "about": {"modality": kind}}


@dataclass(frozen=True)
class Learned:
    """A trained method with its averaged weights, and (images seen, value) of each term of its loss."""

    method: Any
    curves: dict[str, list[tuple[int, float]]]


def learn(
    data: Phantoms,
    images: int = IMAGES,
    prepare: Callable[[Any], object] | None = None,
    schedule: Any = "cosine",
    **config: Any,
) -> Learned:
    """Train the method of a configuration in the product's own loop; `prepare` may change it before."""
    method = build_method(parse_method(config), SIZE)
    if prepare is not None:
        prepare(method)
    if not method.phases:
        return Learned(_finished(method, data), {})
    settings = TrainingConfig(images=images, batch_size=32, ema_decay=0.99, schedule=schedule, warmup_images=320)
    state, curves = TrainState(method, settings), {}
    for step in train(state, data, images):
        for term, value in step.terms.items():
            curves.setdefault(f"{step.phase} {term}", []).append((step.images_seen, value))
    return Learned(_finished(state.ema, data), curves)


def _finished(method: Method, data: Phantoms) -> Method:
    method.eval()
    method.finish(collate(data, range(i, min(i + 64, len(data)))) for i in range(0, len(data), 64))
    return method


def keys(count: int, seed: int = 0) -> Rng:
    """Return one stream of random numbers per image."""
    return Rng.scoring(seed, [str(i) for i in range(count)])


def sheet(rows: Mapping[str, Tensor], title: str = "", columns: int = 10) -> None:
    """Draw a row of pictures per entry, [N, 1, H, W] in [-1, 1], with its name at the left."""
    figure, grid = plt.subplots(len(rows), columns, squeeze=False, figsize=(columns + 1.6, len(rows) + 0.3))
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
        for axes, image in zip(line, images, strict=False):
            axes.imshow(image[0].float(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    figure.suptitle(title, fontsize=10)
    figure.subplots_adjust(left=0.18, right=0.995, bottom=0.01, top=0.9 if title else 0.99, wspace=0.04, hspace=0.05)


def draw_curves(curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, log: str = "") -> None:
    """Draw lines of (x, y) points; `log` names the axes with a logarithmic scale, such as "xy"."""
    _, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    for name, points in curves.items():
        axes.plot(*np.array(points).T, label=name)
    axes.set(xlabel=x, ylabel=y, **{f"{axis}scale": "log" for axis in log})
    axes.legend(frameon=False, fontsize=9)


def smooth(points: Sequence[tuple[int, float]], window: int = 20) -> list[tuple[int, float]]:
    """Return the means of consecutive windows of a curve."""
    blocks = [points[i : i + window] for i in range(0, len(points), window)]
    return [(block[-1][0], float(np.mean([value for _, value in block]))) for block in blocks]


def source(*objects: Callable[..., Any] | type) -> Markdown:
    """Return the source of functions of the package, as it is."""
    texts = [f"# {one.__module__}\n{textwrap.dedent(inspect.getsource(one))}" for one in objects]
    return Markdown("\n".join(f"```python\n{text}```" for text in texts))


def sharpness(images: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels."""
    steps = (images.diff(dim=-1).abs().mean(), images.diff(dim=-2).abs().mean())
    return float(sum(steps) / 2)


def shares(images: Tensor, data: Phantoms) -> dict[str, float]:
    """Return the share of each kind among images, by the kind of the nearest training image."""
    nearest = torch.cdist(images.flatten(1), data.images.flatten(1)).argmin(dim=1)
    named = [data.kinds[int(i)] for i in nearest]
    return {kind: named.count(kind) / len(named) for kind in KINDS}
