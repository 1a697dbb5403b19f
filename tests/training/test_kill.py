"""SIGKILL at any moment, then the same call again: weights, optimiser and history end bit for bit the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.training import TrainingConfig, fit, loop
from pipeline.training.state import get_accelerator

CONFIG = TrainingConfig(
    images=72, batch_size=6, validate_every_images=24, checkpoint_every_images=18, validate_images=5, patience=None
)
FEW = CONFIG.model_copy(update={"images": 54})  # three checkpoints: the last one removes the first
METHODS = ["ae", "vae", "dae", "vq_vae", "ddpm", "toy"]


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """Import what torch imports at the first optimiser step, once, so that the children need not."""
    torch.set_num_threads(1)
    weight = torch.zeros(1, requires_grad=True)
    torch.optim.AdamW([weight], fused=True).step()
    get_accelerator(True)


@pytest.fixture
def training(build: Callable, pictures: Callable, digest: Callable) -> Callable[[str, Path], None]:
    """Train in `folder`, resuming what is there, and leave the digest beside it."""

    def run(name: str, folder: Path, config: TrainingConfig = CONFIG) -> None:
        torch.set_num_threads(1)
        result = fit(build(name), pictures(15), pictures(7), config, folder)
        folder.with_suffix(".sha256").write_text(digest(result, folder))

    return run


def kill_at_call(module: object, function: str, call: int) -> None:
    """Let the process die by SIGKILL when `function` is called for the `call`-th time (from 1)."""
    original, calls = getattr(module, function), 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, function, wrapped)


def killed(
    training: Callable, name: str, folder: Path, module: object, function: str, call: int, *config: TrainingConfig
) -> None:
    kill_at_call(module, function, call)
    training(name, folder, *config)


@pytest.mark.parametrize("name", METHODS)
def test_killed_at_steps_again_and_again(name: str, training: Callable, in_child: Callable, tmp_path: Path) -> None:
    assert in_child(lambda: training(name, tmp_path / "whole")) == 0
    # Steps 1-3 have no checkpoint yet; each later life resumes from one and dies after a few steps more.
    for step in (2, 5, 4, 6):
        assert in_child(lambda step=step: killed(training, name, tmp_path / "cut", loop, "_descend", step)) == -9
    assert in_child(lambda: training(name, tmp_path / "cut")) == 0
    assert (tmp_path / "cut.sha256").read_text() == (tmp_path / "whole.sha256").read_text()


@pytest.mark.parametrize("function", [pytest.param("fsync", marks=pytest.mark.slow), "rename"])
def test_killed_at_every_moment_of_every_checkpoint(
    function: str, training: Callable, in_child: Callable, tmp_path: Path
) -> None:
    assert in_child(lambda: training("toy", tmp_path / "whole", FEW)) == 0
    module = os if function == "fsync" else Path
    for call in range(1, 40):
        folder = tmp_path / f"cut-{call}"
        status = in_child(lambda c=call, f=folder: killed(training, "toy", f, module, function, c, FEW))
        if status == 0:  # fewer calls than that in a whole training: every moment has been tried
            break
        assert status == -9
        assert in_child(lambda f=folder: training("toy", f, FEW)) == 0
        assert folder.with_suffix(".sha256").read_text() == (tmp_path / "whole.sha256").read_text(), call
    assert call > (15 if function == "fsync" else 4)


def test_killed_from_outside_at_odd_times(training: Callable, in_child: Callable, tmp_path: Path) -> None:
    assert in_child(lambda: training("dae", tmp_path / "whole")) == 0
    for delay in (0.05, 0.2, 0.35, 0.5):
        in_child(lambda: training("dae", tmp_path / "cut"), kill_after=delay)
    assert in_child(lambda: training("dae", tmp_path / "cut")) == 0
    assert (tmp_path / "cut.sha256").read_text() == (tmp_path / "whole.sha256").read_text()


def test_another_seed_ends_elsewhere(build: Callable, pictures: Callable, digest: Callable, tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        config = CONFIG.model_copy(update={"seed": seed})
        result = fit(build("toy"), pictures(15), pictures(7), config, tmp_path / str(seed))
        digests.add(digest(result, tmp_path / str(seed)))
    assert len(digests) == 2
