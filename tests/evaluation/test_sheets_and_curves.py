"""Pictures of words and of paired answers: what they show, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.evaluation.captioned_sheet import draw_captioned
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.paired_figure import draw_levels
from pipeline.evaluation.paired_quality import judge_pairs


def test_captions_are_beneath_their_pictures() -> None:
    captions = ["axial MR brain, upper third, no finding", "axial MR brain, lesion left"]
    figure = draw_captioned(np.zeros((2, 8, 8)), captions, "two prompts")
    texts = " ".join(text.get_text() for axes in figure.axes for text in [axes.title, axes.xaxis.label, *axes.texts])
    assert "upper third" in texts and "lesion left" in texts
    assert sum(len(axes.images) for axes in figure.axes) == 2


def test_levels_are_drawn_with_one_line_per_answer() -> None:
    target = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    patients = [f"p{n}" for n in range(6)]
    rows = {"nothing": [], "model": []}
    for noise in (0.1, 0.4):
        worse = target + noise
        judged = judge_pairs(
            {"nothing": worse, "model": target + noise / 2}, target, patients, EvaluationConfig(resamples=100)
        )
        for row in judged:
            rows[row.name].append(row)
    figure = draw_levels("offset", [0.1, 0.4], rows)
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "offset"
    drawn = {one.get_label(): one.lines[0].get_ydata() for one in left.containers}
    assert drawn["nothing"] == pytest.approx([one.psnr.value for one in rows["nothing"]])
    assert (np.array(drawn["model"]) > np.array(drawn["nothing"])).all()
