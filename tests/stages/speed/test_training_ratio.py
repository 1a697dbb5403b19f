"""The loop against a bare one; `nightread benchmark speed` measures the ratio at length."""

from __future__ import annotations

import pytest

from pipeline.methods import METHODS
from pipeline.stages.speed.training_ratio import measure_training_ratio


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch_size"), [("ae", 64), ("dae", 16)])
def test_the_loop_keeps_nine_tenths_of_a_bare_loops_speed(name: str, batch_size: int) -> None:
    speed = measure_training_ratio(METHODS[name](), 64, batch_size, rounds=7, steps=2)
    assert speed.method == name and speed.batch_size == batch_size
    assert speed.ratio > 0.9


def test_the_benchmark_runs_on_a_small_network() -> None:
    config = METHODS["ae"](widths=(4, 8), hidden=16, latent=4)
    speed = measure_training_ratio(config, 16, 4, rounds=2, steps=1)
    assert speed.images_per_second > 0 and speed.bare_images_per_second > 0 and speed.ratio > 0
