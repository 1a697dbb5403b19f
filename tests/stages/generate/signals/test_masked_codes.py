"""The masked-token transformer: hidden codes cannot be seen, both directions can, and a fill-in is learned."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.testing import assert_close

from pipeline.stages.generate.signals.masked_codes import MaskedCodes, MaskedCodesConfig, Sequences, learn, predict
from pipeline.training.config import TrainingConfig

CONFIG = MaskedCodesConfig(vocabulary=6, length=8, classes=2, width=16, layers=1, heads=2, dropout=0.0, lr=5e-3)


def test_a_hidden_code_is_not_seen_and_both_neighbours_are() -> None:
    network = MaskedCodes(CONFIG).network.eval()
    codes = torch.randint(6, (1, 8), generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, 4] = True
    first = network.fill(codes, hidden)
    for place, same in ((4, True), (0, False), (7, False)):
        other = codes.clone()
        other[0, place] = (other[0, place] + 1) % 6
        again = network.fill(other, hidden)
        assert torch.equal(again, first) is same


def test_it_learns_what_comes_between_and_starts_from_given_weights(tmp_path: Path) -> None:
    ramp = (torch.arange(8)[None] + torch.arange(6)[:, None]) % 6  # every code follows from its neighbours
    training = TrainingConfig(images=1600, batch_size=16, ema_decay=0.9, validate_every_images=1600, patience=None)
    trained = learn(CONFIG, Sequences(ramp, [0] * 6), training, tmp_path / "a")
    hidden = torch.zeros(6, 8, dtype=torch.bool)
    hidden[:, 3] = True
    assert (trained.network.fill(ramp, hidden).argmax(dim=2)[:, 3] == ramp[:, 3]).all()
    own = CONFIG.model_copy(update={"learns": "classes", "lr": 1e-9})
    few = training.model_copy(update={"images": 16, "validate_every_images": 16})
    tuned = learn(own, Sequences(ramp, [0, 1] * 3), few, tmp_path / "b", trained)
    assert_close(tuned.network.embed.weight, trained.network.embed.weight, atol=1e-4, rtol=0)
    assert predict(tuned, ramp).shape == (6,)
