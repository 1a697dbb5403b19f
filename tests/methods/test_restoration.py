"""Restoration at test time, by the methods that offer it: a lesion disappears, normal tissue stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.methods import METHODS
from pipeline.methods.base import Method
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train

SMALL = {
    "vae": {"widths": (8, 16), "latent": 4},
    "conditional_vae": {"widths": (8, 16), "latent": 4},
    "vampprior": {"widths": (8, 16), "latent": 4, "pseudo_inputs": 4},
}


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest, discs: Any) -> Method:
    """Each method, trained for seconds on the heads."""
    state = TrainState(
        METHODS[request.param](**SMALL[request.param], lr=3e-3).build(32),
        TrainingConfig(batch_size=16, images=4800, ema_decay=0.9),
    )
    list(train(state, discs, 4800))
    return state.ema.eval()


def searching(method: Method, **values: Any) -> Method:
    """The same weights under a search."""
    again = METHODS[method.config.name](**SMALL[method.config.name], restoration=values).build(32)
    again.load_state_dict(method.state_dict())
    return again.eval()


def test_a_lesion_is_removed_and_what_is_normal_stays_bit_for_bit(trained: Method, discs: Any) -> None:
    healthy = discs[16]["image"]
    blob = torch.zeros(1, 32, 32, dtype=torch.bool)
    blob[:, 12:17, 8:13] = True
    y = (healthy + 0.8 * blob)[None]
    x_hat = searching(trained, search="image", steps=40, weight=0.3).reconstruct(y, Rng([0]))
    assert not x_hat.requires_grad and all(p.grad is None for p in trained.parameters())
    assert torch.equal(x_hat[0][~blob & discs.body], y[0][~blob & discs.body])
    assert (y - x_hat)[0][blob].mean() > 0.25


def test_a_searched_code_explains_the_scan_better_than_the_encoders(trained: Method, discs: Any) -> None:
    y = torch.stack([discs[i]["image"].roll(3, dims=2) for i in (3, 20)])
    errors = [
        (y - one.reconstruct(y, Rng([0, 1]))).square().mean()
        for one in (trained, searching(trained, search="latent", steps=60, rate=0.05))
    ]
    assert errors[1] < 0.95 * errors[0]


def test_rows_do_not_depend_on_their_company(trained: Method, discs: Any) -> None:
    y = torch.stack([discs[i]["image"] for i in (0, 9, 30)])
    for search in ("image", "latent"):
        one = searching(trained, search=search, steps=5, weight=0.05)
        assert_close(one.reconstruct(y[1:2], Rng([1]))[0], one.reconstruct(y, Rng([0, 1, 2]))[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_search_survives_the_way_through_json(name: str) -> None:
    searching_config = METHODS[name](restoration={"search": "latent"})
    assert METHODS[name].model_validate(searching_config.model_dump(mode="json")) == searching_config != METHODS[name]()
