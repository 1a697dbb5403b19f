"""Training shared among processes, as `accelerate launch --num_processes 2` starts it, gives what one process gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

from pipeline.methods.artefact import save_weights
from pipeline.methods.dae import DaeConfig
from pipeline.training import fit
from pipeline.stages.speed.training_ratio import RandomImages
from pipeline.training.config import TrainingConfig
from pipeline.training.state import get_accelerator

torch.set_default_dtype(torch.float64)  # sums in another order differ by 1e-16, so that Adam steps the same way
data = RandomImages(8, 32)
config = TrainingConfig(images=48, batch_size=4, validate_every_images=24, schedule="cosine", precision="fp32")
result = fit(DaeConfig(widths=(8,) * 6).build(32), data, data, config, Path(sys.argv[1]))
found = get_accelerator(True)
place = f"{sys.argv[2]}.{found.num_processes}.{found.process_index}"
save_weights(result.method, Path(place))
Path(place + ".json").write_text(json.dumps([record.validation["total"] for record in result.history]))
"""


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def train(tmp_path: Path) -> Callable[[int, Path], None]:
    """Train in so many processes over gloo on the loopback; each writes its weights."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")

    def run(processes: int, folder: Path) -> None:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port(), "WORLD_SIZE": str(processes)}
        shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), str(folder), str(tmp_path / "weights")]
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        several = [shared | rank if processes > 1 else {"OMP_NUM_THREADS": "1"} for rank in ranks]
        children = [subprocess.Popen(command, env=os.environ | env, cwd=Path(__file__).parents[2]) for env in several]
        assert [child.wait(timeout=300) for child in children] == [0] * processes

    return run


@pytest.mark.slow
def test_two_processes_train_what_one_trains(train: Callable[[int, Path], None], tmp_path: Path) -> None:
    train(1, tmp_path / "one")
    train(2, tmp_path / "two")
    first, second = (load_file(tmp_path / f"weights.2.{rank}") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(second[name], value), name  # the processes agree to the bit
    for name, value in load_file(tmp_path / "weights.1.0").items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-8)
        assert value.dtype == torch.float64 or not value.is_floating_point()
    alone, shared = (json.loads((tmp_path / f"weights.{name}.json").read_text()) for name in ("1.0", "2.0"))
    assert shared == pytest.approx(alone, rel=1e-5)
    assert alone[1] < 0.98 * alone[0]  # and training moved them further than that
