"""The loop: a bare Adam loop's weights, turns of phases, averaged weights, order of data, divergence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pipeline.errors import ConfigError, EmptySelection, Rejected, TrainingDiverged
from pipeline.methods.base import Phase
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.training.order import collate, draw_indices, phase_cycle
from pipeline.training.state import get_accelerator


def test_it_trains_like_a_bare_adam_loop(build: Callable, pictures: Callable) -> None:
    data, config = pictures(10), TrainingConfig(images=40, batch_size=4, seed=3)
    state = TrainState(build("dae"), config)
    records = list(train(state, data, 40))
    bare = build("dae").to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(bare.parameters(), lr=1e-3, fused=True)
    for step in range(10):
        batch = collate(data, draw_indices(3, 4 * step, 4, 10))
        terms = bare.loss(batch, "train", Rng.training(3, 4 * step, 4))
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        assert_close(records[step].terms["total"], terms["total"].item(), rtol=1e-3, atol=1e-5)
    for a, b in zip(state.method.parameters(), bare.parameters(), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["wgan_gp", "f_anogan", "stylegan2"])
def test_second_derivatives_move_their_own_weights(name: str, build: Callable, pictures: Callable) -> None:
    """A gradient penalty's gradient may have other strides than its weight, which a fused optimiser would mix up."""
    data, trained, bare = pictures(10), build(name), build(name)
    state, first = TrainState(trained, TrainingConfig(images=4000, batch_size=4, seed=3)), trained.phases[0]
    bare = bare.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(bare.parameters_of(first), lr=first.lr, betas=first.betas)
    (record,) = train(state, data, 4)
    batch = collate(data, draw_indices(3, 0, 4, 10))
    terms = bare.loss(batch.to(torch.device("cpu"), bare.layout), first.name, Rng.training(3, 0, 4))
    terms["total"].backward(inputs=bare.parameters_of(first))
    optimiser.step()
    assert record.terms["total"] == pytest.approx(terms["total"].item(), rel=1e-3)
    for a, b in zip(state.method.parameters_of(first), bare.parameters_of(first), strict=True):
        assert_close(a, b, rtol=1e-4, atol=first.lr / 20)


def test_averaged_weights_by_hand(build: Callable, pictures: Callable) -> None:
    # Decay after step n is min(0.3, (1 + n) / (10 + n)): 2/11, 3/12, 4/13 > 0.3.
    state = TrainState(build("toy"), TrainingConfig(batch_size=5, images=15, ema_decay=0.3))
    weight = state.method.critic[1].weight
    expected = weight.detach().clone()
    for decay, _ in zip((2 / 11, 3 / 12, 0.3), train(state, pictures(5), 15), strict=True):
        expected = decay * expected + (1 - decay) * weight.detach()
    assert_close(state.ema.critic[1].weight, expected)
    assert state.ema.turns == state.method.turns == 3


def test_phases_take_their_turns_and_touch_their_own_weights(build: Callable, pictures: Callable) -> None:
    state = TrainState(build("toy"), TrainingConfig(batch_size=5, images=1000))
    turns = []
    watched = {"critic": state.method.critic[1].weight, "generator": state.method.generator.weight}
    before = {name: w.detach().clone() for name, w in watched.items()}
    for record in train(state, pictures(5), 50):
        moved = {name for name, w in watched.items() if not torch.equal(before[name], w)}
        assert moved == {record.phase}
        before = {name: w.detach().clone() for name, w in watched.items()}
        turns.append(record.phase[0])
    # Rounds: critic twice and generator; critic twice (generator has every=2); and so on.
    assert "".join(turns) == "ccgccccgcc"


def test_the_cycle_of_phases_by_hand() -> None:
    phases = (Phase("a", repeats=2), Phase("b", every=2), Phase("c", every=3))
    assert "".join(p.name for p in phase_cycle(phases)) == "aabc" + "aa" + "aab" + "aac" + "aab" + "aa"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_every_epoch_sees_each_image_once_however_batches_fall(seed: int, size: int, batches: list[int]) -> None:
    seen, first = [], 0
    for count in batches:
        seen += draw_indices(seed, first, count, size)
        first += count
    for epoch in range(len(seen) // size):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert Counter(draw_indices(seed, 0, 3 * size, size)) == dict.fromkeys(range(size), 3)
    if size > 8:
        assert draw_indices(seed, 0, size, size) != draw_indices(seed, size, size, size)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_stops_before_any_weight_changes(
    build: Callable, pictures: Callable, bad: float
) -> None:
    state = TrainState(build("ae"), TrainingConfig(batch_size=4, images=100))
    original = state.method.loss

    def loss(batch: object, phase: str, rng: Rng) -> dict:
        terms = original(batch, phase, rng)
        return terms if state.images_seen < 8 else {"total": terms["total"] * bad, "sharpness": terms["total"] * bad}

    state.method.loss = loss
    with pytest.raises(TrainingDiverged, match=r"'sharpness'.*\b(nan|inf)\b.*\b8\b"):
        list(train(state, pictures(6), 100))
    assert all(torch.isfinite(p).all() for p in state.method.parameters())
    assert state.progress.step == 2


def test_a_gradient_that_is_not_finite_stops_too(build: Callable, pictures: Callable) -> None:
    state = TrainState(build("toy"), TrainingConfig(batch_size=5, images=100))
    # sqrt has an infinite slope at 0 while its value is finite.
    state.method.loss = lambda batch, phase, rng: {"total": (state.method.critic[1].weight * 0).sum().sqrt()}
    with pytest.raises(TrainingDiverged, match=r"'gradient_norm'.*\bnan\b"):
        list(train(state, pictures(5), 100))
    assert torch.isfinite(state.method.critic[1].weight).all()


def test_pixels_that_are_not_finite_are_refused_as_data_not_as_divergence(build: Callable, pictures: Callable) -> None:
    data = pictures(4)
    data.images[2] = data.images[2] * float("nan")
    with pytest.raises(Rejected, match="1 of 4 images"):
        list(train(TrainState(build("ae"), TrainingConfig(batch_size=4)), data, 4))


def test_no_images_and_no_phases_are_refused(build: Callable, pictures: Callable) -> None:
    with pytest.raises(EmptySelection):
        list(train(TrainState(build("ae"), TrainingConfig()), pictures(0), 16))
    idle = build("ae")
    idle.phases = ()
    with pytest.raises(ConfigError, match="phase"):
        TrainState(idle, TrainingConfig())


def test_learning_rate_by_hand() -> None:
    rising = TrainingConfig(images=1000, warmup_images=100)
    assert [rising.rate(n) for n in (0, 49, 99, 5000)] == [0.01, 0.5, 1.0, 1.0]
    falling = TrainingConfig(images=1000, schedule="cosine")
    assert falling.rate(0) == 1.0 and falling.rate(500) == pytest.approx(0.5) and falling.rate(1000) == pytest.approx(0)


def test_gradients_are_clipped_to_the_norm(build: Callable, pictures: Callable) -> None:
    def moved(clip: float | None) -> float:
        state = TrainState(build("ae"), TrainingConfig(batch_size=4, clip_norm=clip))
        weight = state.method.code[0].weight
        before = weight.detach().clone()
        optimiser = torch.optim.SGD(state.method.parameters_of(state.phase), lr=1.0)
        state.optimisers = {"train": optimiser}
        record = next(train(state, pictures(4), 4))
        change = torch.stack([(weight - before).square().sum()]).sqrt().item()
        return change / (1e-3 * record.terms["gradient_norm"])

    assert moved(1e-4) < 0.01 * moved(None)


def test_a_batch_holds_what_the_items_hold(pictures: Callable) -> None:
    data = pictures(4)
    batch = collate(data, [3, 0])
    assert batch.ids == ("picture-3", "picture-0") and torch.equal(batch.images[0], data[3]["image"])
    arrays = [{**data[i], "image": data[i]["image"].numpy(), "body": data[i]["body"].numpy()} for i in range(4)]
    assert torch.equal(collate(arrays, [3, 0]).images, batch.images)
    assert replace(batch, ids=()).body.dtype == torch.bool


def test_a_process_that_has_settled_on_the_cpu_does_not_go_on_there_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    get_accelerator(True)  # Accelerate keeps its first device
    get_accelerator.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="auto"):
        get_accelerator(False)
    get_accelerator.cache_clear()
