"""Sheet of findings: how many pictures, and which."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.findings_sheet import draw_findings


@pytest.mark.parametrize(("number", "pictures"), [(1, 1), (7, 7), (40, 24)])
def test_a_sheet_holds_the_first_findings(number: int, pictures: int) -> None:
    images = np.linspace(-1, 1, number)[:, None, None] * np.ones((number, 8, 8))
    outlines = np.zeros_like(images)
    outlines[:, 2:5, 2:5] = 1
    figure = draw_findings(images, outlines)
    drawn = [axes.images[0].get_array()[0, 0] for axes in figure.axes if axes.images]
    assert drawn == pytest.approx(np.linspace(-1, 1, number)[:pictures])
    assert figure.get_suptitle() == f"{pictures} of {number} findings, strongest first"
