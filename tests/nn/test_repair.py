"""The repair's loss: painted pixels weigh more, and without a gate the output is the image."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.nn.repair import RepairFields, mean_of_draws


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_painted_pixels_have_their_weight(weight: float) -> None:
    """Body of 8 pixels, 2 painted with an error of 1, 6 unpainted with 0.5: (2 w + 3) / 8; the error outside: none."""
    fields = RepairFields(gated=False, painted_weight=weight)
    clean, body = torch.zeros(1, 1, 3, 4), torch.tensor([1, 1, 0]).bool()[:, None].expand(3, 4)[None, None]
    lesion = torch.zeros_like(body)
    lesion[..., 0, :2] = True
    repaired = fields.repaired(clean, torch.where(lesion, 1.0, 0.5))
    terms = fields.repair_terms(repaired, clean, lesion.float(), body)
    assert terms.keys() == {"repair", "absolute"}
    assert_close(terms["repair"], torch.tensor((2 * weight + 3) / 8))


def test_a_gate_adds_its_terms_and_its_channel() -> None:
    fields = RepairFields(gate=3.0)
    assert fields.outputs(2) == 3 and RepairFields(gated=False).outputs(2) == 2
    x, body = torch.zeros(2, 2, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    terms = fields.repair_terms(fields.repaired(x, torch.ones(2, 3, 4, 4)), x, body.float(), body)
    assert_close(terms["absolute"], torch.tensor(1.0).sigmoid())
    assert_close(terms["repair"], terms["absolute"] + 3 * (terms["cross_entropy"] + terms["dice"]))


def test_draws_are_averaged() -> None:
    assert mean_of_draws([torch.zeros(2), torch.tensor([2.0, 6.0])]).tolist() == [1.0, 3.0]
