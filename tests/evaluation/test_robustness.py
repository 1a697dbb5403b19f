"""Answers under attack: shares, areas and curves, and a classifier whose answer has a gradient in the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.image_classifier import ImageClassifier
from pipeline.evaluation.robustness import RobustnessRow, areas, draw_times, mean_shares

FEW = EvaluationConfig(resamples=200)
PATIENTS = [f"p{number // 2}" for number in range(40)]


def test_shares_are_means_over_images_with_intervals_over_patients() -> None:
    right = np.arange(40) % 4 < 3
    shares = mean_shares({"clean": right, "attacked": np.zeros(40)}, PATIENTS, FEW)
    assert shares["clean"].value == pytest.approx(0.75)
    assert shares["clean"].low is not None and shares["clean"].low < 0.75
    assert (shares["attacked"].value, shares["attacked"].high) == (0, 0)


def test_areas_are_those_of_each_column() -> None:
    abnormal = np.repeat([False, True], 20)
    scores = np.linspace(0, 1, 40)
    measured = areas({"clean": scores, "turned round": -scores}, abnormal, PATIENTS, FEW)
    assert (measured["clean"].value, measured["turned round"].value) == (1, 0)


def test_a_curve_over_times_shows_the_three_answers_and_both_undefended_ones() -> None:
    def row(name: str, value: float, time: float | None) -> RobustnessRow:
        estimate = Estimate(value=value, low=value - 0.1, high=None if time == 0.2 else value + 0.1)
        return RobustnessRow(
            victim="classifier", defence=name, measure="accuracy", clean=estimate, unaware=estimate, adaptive=estimate,
            seconds_per_image=0.1, time=time,
        )  # fmt: skip

    figure = draw_times([row("nothing", 0.3, None), row("late", 0.5, 0.2), row("early", 0.7, 0.1)])
    (axes,) = figure.axes
    assert axes.get_ylabel() == "accuracy of the classifier"
    curves = [one.lines[0].get_xydata() for one in axes.containers]
    assert len(curves) == 3 and all(np.allclose(curve, [[0.1, 0.7], [0.2, 0.5]]) for curve in curves)
    assert [line.get_ydata()[0] for line in axes.lines[-2:]] == [0.3, 0.3]


@pytest.mark.parametrize("names", [("dark", "bright"), ("dark", "grey", "bright")])
def test_a_classifier_tells_classes_apart_and_has_a_gradient(names: tuple[str, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    levels = torch.linspace(-0.8, 0.8, len(names))
    images = (
        levels.repeat(8)[:, None, None, None] + 0.05 * torch.randn(8 * len(names), 1, 32, 32, generator=rng)
    ).clamp(-1, 1)
    classes = list(names) * 8
    classifier = ImageClassifier(images, classes)
    assert classifier.names == tuple(sorted(names))
    assert classifier.numbers([names[0], "unseen"]).tolist() == [classifier.names.index(names[0]), -1]
    some = images[:4].clone().requires_grad_()
    logits = classifier.logits(some)
    assert logits.argmax(dim=1).tolist() == classifier.numbers(classes[:4]).tolist()
    logits[:, -1].sum().backward()  # of two classes, the first has a logit of 0
    assert some.grad is not None and (some.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_one_class_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        ImageClassifier(torch.zeros(4, 1, 32, 32), ["dark"] * 4)
