"""Phases that follow each other, and methods that are fitted without any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.nn.rng import Rng
from pipeline.training import fit
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import train
from pipeline.training.order import find_phase_borders
from pipeline.training.state import TrainState
from pipeline.types import Batch


class TwoStageConfig(MethodConfig):
    """Configuration of the toy."""

    name: Literal["two-stage"] = "two-stage"

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> TwoStage:
        return TwoStage(self, image_size, channels, spatial_dims)


class TwoStage(Method):
    """A number learns the images' mean; then a second one learns twice the first."""

    def __init__(self, config: TwoStageConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.register_buffer("kept", torch.zeros(2))
        self.phases = (
            Phase("codec", ("first",), lr=0.02, until=0.5),
            Phase("prior", ("second",), lr=0.02, after=0.5),
        )

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        first = self.first.weight
        target = batch.images.mean() if phase == "codec" else 2 * first.detach()
        answer = first if phase == "codec" else self.second.weight
        return {"total": (answer - target).square().mean()}

    def finish(self, batches: Iterable[Batch]) -> None:
        pixels = torch.cat([batch.images.flatten() for batch in batches])
        self.kept.copy_(torch.stack([pixels.mean(), torch.tensor(float(len(pixels)))]))


class Bank(TwoStage):
    """Fitted without the loop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.phases = ()


def _toy() -> TwoStage:
    return TwoStageConfig().build(32)


def _config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(
        **{"images": 400, "batch_size": 2, "validate_every_images": 100, "ema_decay": 0.5, "patience": 1} | changes
    )


def test_the_second_phase_starts_from_what_the_first_learned(pictures: Callable, tmp_path: Path) -> None:
    data = pictures(4)
    mean = float(torch.stack(data.images).mean())
    result = fit(_toy(), data, data, _config(), tmp_path)
    first, second = result.method.first.weight.item(), result.method.second.weight.item()
    assert first == pytest.approx(mean, abs=0.05)
    assert second == pytest.approx(2 * first, abs=0.05)
    assert result.method.kept.tolist() == pytest.approx([mean, 4 * 32 * 32], abs=1e-5)


def test_each_phase_moves_its_own_weights_in_its_own_time(pictures: Callable) -> None:
    state = TrainState(_toy(), _config())
    phases, weights = [], []
    for record in train(state, pictures(4), 400):
        phases.append(record.phase)
        weights.append((state.method.first.weight.item(), state.method.second.weight.item()))
    assert phases == ["codec"] * 100 + ["prior"] * 100
    assert len({second for _, second in weights[:100]}) == 1 and len({first for first, _ in weights[100:]}) == 1
    assert len({first for first, _ in weights[:100]}) > 50


def test_at_the_border_the_averaged_weights_become_the_weights(pictures: Callable) -> None:
    state = TrainState(_toy(), _config(ema_decay=0.9))
    steps = train(state, pictures(4), 400)
    for _ in range(100):
        next(steps)
    averaged = state.ema.first.weight.item()
    assert averaged != state.method.first.weight.item()
    next(steps)
    assert state.method.first.weight.item() == averaged == state.ema.first.weight.item()


def test_patience_and_the_best_belong_to_the_last_stage(pictures: Callable, tmp_path: Path) -> None:
    data = pictures(4)
    result = fit(_toy(), data, data, _config(images=4000), tmp_path)
    assert result.stopped in ("patience", "images") and result.images_seen > 2000
    assert result.best_images_seen > 2000


def test_seconds_lead_to_the_next_stage_as_images_do(pictures: Callable) -> None:
    state = TrainState(_toy(), _config(images=10**6, max_seconds=10))
    steps = train(state, pictures(4), 10**6)
    assert next(steps).phase == "codec"
    state.progress.process_seconds = 5.0
    assert next(steps).phase == "prior"


def test_the_seconds_of_each_stage_add_up_to_those_of_the_training(pictures: Callable, tmp_path: Path) -> None:
    data = pictures(4)
    result = fit(_toy(), data, data, _config(), tmp_path)
    assert len(result.stage_seconds) == 2 and min(result.stage_seconds) > 0
    assert sum(result.stage_seconds) == pytest.approx(result.process_seconds)
    again = fit(_toy(), data, data, _config(patience=2), tmp_path)  # finished: nothing more is spent
    assert sum(again.stage_seconds) == pytest.approx(again.process_seconds)
    assert again.process_seconds == pytest.approx(result.process_seconds, abs=0.5)


def test_a_stopped_training_goes_on_in_its_stage(pictures: Callable, tmp_path: Path) -> None:
    data = pictures(4)
    straight = fit(_toy(), data, data, _config(patience=None), tmp_path / "a")

    def stop_at_300(record: Any) -> None:
        if record.images_seen == 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(_toy(), data, data, _config(patience=None), tmp_path / "b", stop_at_300)
    resumed = fit(_toy(), data, data, _config(patience=None), tmp_path / "b")
    for name, value in straight.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    with pytest.raises(ConfigError, match="another"):
        fit(_toy(), data, data, _config(images=800, patience=None), tmp_path / "b")


def test_a_method_without_phases_is_finished_alone(pictures: Callable, tmp_path: Path) -> None:
    data = pictures(3)
    result = fit(Bank(TwoStageConfig(), 32, 1, 2), data, None, _config(), tmp_path)
    assert result.method.kept[1].item() == 3 * 32 * 32 and result.stopped == "images" and result.images_seen == 3
    with pytest.raises(EmptySelection):
        fit(Bank(TwoStageConfig(), 32, 1, 2), pictures(0), None, _config(), tmp_path)


@pytest.mark.parametrize(("after", "until"), [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_a_phase_that_ends_before_it_begins_is_refused(after: float, until: float) -> None:
    with pytest.raises(ConfigError, match=rf"'odd'.*{after}.*{until}"):
        find_phase_borders([Phase("all"), Phase("odd", after=after, until=until)])


def test_a_time_without_a_phase_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\b0\.3\b"):
        find_phase_borders([Phase("a", until=0.3), Phase("b", after=0.6)])
