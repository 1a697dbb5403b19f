"""`synthetic_lesion`: its loss by hand, its map, and lesions found that were never in its training."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.corruption import IntensityConfig, LesionConfig, PoseConfig, ShapeConfig, Tinted, jitter, paint, pose
from pipeline.methods.synthetic_lesion import SyntheticLesion, SyntheticLesionConfig
from pipeline.nn.masked import soft_dice_loss
from pipeline.nn.rng import Rng
from pipeline.types import Batch

WIDTHS = (8, 8, 8, 8, 8, 8)
LESIONS = LesionConfig(shape=ShapeConfig(radius=(0.08, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))


class Says(nn.Module):
    """A network that answers with a given logit."""

    def __init__(self, logit: Tensor) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, x: Tensor) -> Tensor:
        return self.logit.expand_as(x)


def method_that_says(logit: Tensor, **values: object) -> SyntheticLesion:
    method = SyntheticLesionConfig(widths=WIDTHS, lesions=LESIONS, **values).build(32)
    method.network = Says(logit)
    return method


def batch_of(count: int) -> Batch:
    body = torch.zeros(count, 1, 32, 32, dtype=torch.bool)
    body[..., 2:-2] = True
    return Batch(torch.zeros(count, 1, 32, 32), body, tuple(map(str, range(count))))


def test_soft_dice_by_hand() -> None:
    p = torch.tensor([[[[0.5, 1.0], [0.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]]])
    g = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    # 1 - (2 * 1.5 + 1) / (2 + 2 + 1) = 0.2; nothing to find and nothing found: 0; one pixel for nothing: 1 - 1/2
    assert_close(soft_dice_loss(p, g), torch.tensor((0.2 + 0.0 + 0.5) / 3))


def test_an_undecided_network_pays_ln_2_and_the_dice_of_a_half() -> None:
    batch, rng = batch_of(20), Rng(range(20))
    method = method_that_says(torch.zeros(()), intensity=IntensityConfig())
    terms = method.loss(batch, "train", rng)
    assert_close(terms["cross_entropy"], torch.tensor(math.log(2)))
    lesion = paint(batch.images, batch.body, LESIONS, rng).mask.flatten(1).sum(dim=1)
    inside = 32 * 28
    assert_close(terms["dice"], (1 - (lesion + 1) / (inside / 2 + lesion + 1)).mean())
    assert_close(terms["total"], terms["cross_entropy"] + terms["dice"])
    unweighted = method_that_says(torch.zeros(()), intensity=IntensityConfig(), dice=0.0).loss(batch, "train", rng)
    assert_close(unweighted["total"], unweighted["cross_entropy"])


def test_the_right_answer_costs_nothing_and_its_opposite_much() -> None:
    batch, rng = batch_of(20), Rng(range(20))
    intensity, moved = IntensityConfig(gamma=1.3), PoseConfig(mirror=True, rotate_degrees=20, warp=0.02)
    images, body = pose(batch.images, batch.body, moved, rng)
    x = jitter(images, body, intensity, rng)
    truth = paint(x, body, LESIONS, rng).mask.float() * 60 - 30
    right = method_that_says(truth, intensity=intensity, pose=moved).loss(batch, "train", rng)
    wrong = method_that_says(-truth, intensity=intensity, pose=moved).loss(batch, "train", rng)
    assert right["total"] < 1e-6
    assert wrong["cross_entropy"] > 29 and wrong["dice"] > 0.9


def test_outside_the_body_nothing_counts() -> None:
    batch, rng = batch_of(20), Rng(range(20))
    outside = torch.where(batch.body[:1], 0.0, 50.0)
    here, there = (method_that_says(logit).loss(batch, "train", rng) for logit in (torch.zeros(()), outside))
    assert_close(here["total"], there["total"])


def test_the_map_is_minus_log_of_healthy_and_does_not_saturate() -> None:
    logits = torch.linspace(-30, 60, 1024).reshape(1, 1, 32, 32)
    scores = method_that_says(logits).anomaly_map(torch.zeros(1, 1, 32, 32), Rng([1]))
    p = logits.double().sigmoid()
    assert_close(scores[logits < 20].double(), -torch.log1p(-p[logits < 20]), rtol=1e-4, atol=1e-9)
    assert (scores.flatten().diff() > 0).all() and scores.min() > 0  # a probability would be 1 from a logit of 17 on
    assert (logits.sigmoid() == 1).sum() > 400


def discs(count: int, first: int = 0) -> Batch:
    """Smooth discs, each of its own size, brightness and slope."""
    axis = torch.linspace(-1, 1, 32)
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    numbers = torch.arange(first, first + count)[:, None, None, None]
    body = radius < 0.75 + 0.02 * (numbers % 7)
    images = -0.4 + 0.05 * (numbers % 11) + 0.3 * torch.cos(4 * radius) + 0.02 * (numbers % 5) * axis
    return Batch(torch.where(body, images, -1.0), body, tuple(map(str, range(first, first + count))))


class Items:
    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.ids)

    def __getitem__(self, i: int) -> dict[str, object]:
        return {"image": self.batch.images[i], "body": self.batch.body[i], "id": self.batch.ids[i]}


@pytest.fixture(scope="module")
def trained() -> SyntheticLesion:
    from pipeline.training import TrainingConfig, TrainState, train

    method = SyntheticLesionConfig(widths=WIDTHS, lesions=LESIONS, lr=4e-3).build(32)
    state = TrainState(method, TrainingConfig(batch_size=8, images=800, ema_decay=0.95))
    list(train(state, Items(discs(64)), 800))
    return state.ema


def test_a_trained_one_finds_shapes_that_it_never_saw(trained: SyntheticLesion) -> None:
    batch = discs(32, first=500)
    lesion = torch.zeros(32, 1, 32, 32, dtype=torch.bool)
    for i in range(32):  # squares: the painter knows none
        row, column = 9 + i % 8, 9 + (3 * i) % 8
        lesion[i, 0, row : row + 6, column : column + 6] = i % 2 == 0
    images = batch.images + 0.45 * lesion
    maps = trained.anomaly_map(images, Rng(range(32)))
    inside, truth = batch.body, lesion[batch.body].numpy()
    assert average_precision_score(truth, maps[inside].numpy()) > 0.97
    assert average_precision_score(truth, images[inside].numpy()) < 0.9  # brightness alone
    scores = maps.masked_fill(~inside, 0).flatten(1).topk(10, dim=1).values.mean(dim=1)
    assert roc_auc_score(lesion.flatten(1).any(dim=1), scores) > 0.95


def test_it_says_nothing_of_healthy_images_and_nothing_of_labels_that_are_shuffled(trained: SyntheticLesion) -> None:
    batch = discs(32, first=900)
    probabilities = 1 - torch.exp(-trained.anomaly_map(batch.images, Rng(range(32))))
    assert probabilities[batch.body].mean() < 0.05
    scores = probabilities.flatten(1).amax(dim=1)
    labels = torch.rand(200, 32, generator=torch.Generator().manual_seed(0)).argsort(dim=1) < 16
    mean = sum(roc_auc_score(row, scores) for row in labels) / 200
    assert abs(mean - 0.5) < 0.04


def test_a_volume_is_learnt_from_and_mapped() -> None:
    method = SyntheticLesionConfig(widths=(8, 8, 8, 8, 8, 8), lesions=LESIONS).build(32, spatial_dims=3)
    x, body = torch.zeros(2, 1, 32, 32, 32), torch.ones(2, 1, 32, 32, 32, dtype=torch.bool)
    terms = method.loss(Batch(x, body, ("a", "b")), "train", Rng([1, 2]))
    terms["total"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    assert method.anomaly_map(x, Rng([1, 2])).shape == x.shape
