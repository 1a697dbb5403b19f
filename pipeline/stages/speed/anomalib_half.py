"""anomalib's half of `nightread benchmark anomalib`, run by the Python of anomalib's own environment.

Nothing of Nightread is imported, as it is not installed there: pictures and a request are read from a folder, and the
answer is written into it. The models, their loops and their defaults are anomalib's; only the weights of the backbone
come from a file, since timm would download them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore, Stfpm
from anomalib.pre_processing import PreProcessor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize

BACKBONE = "tf_efficientnet_lite0"
LAYERS = ["blocks.2", "blocks.4"]  # strides 8 and 16, as depths 3 and 4 of `knn_features`
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3  # of the images that the backbone learned from
BATCH = 32  # anomalib's default
STFPM_EPOCHS = 20
MODELS: dict[str, Callable[..., Any]] = {
    "patchcore": partial(Patchcore, coreset_sampling_ratio=0.01),
    "padim": partial(Padim, n_features=100),
    "stfpm": Stfpm,
}


def main(folder: Path) -> None:
    """Train and time the models that `request.json` names, and write `answer.json`."""
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(1)
    _read_weights_from(Path(request["weights"]))
    answer = [_measure(folder, name, int(request["size"]), int(request["rounds"])) for name in request["models"]]
    (folder / "answer.json").write_text(json.dumps(answer))


def _read_weights_from(file: Path) -> None:
    """Let timm take the backbone's weights from a file, which lists the same tensors in the same order."""
    weights, create = list(torch.load(file, map_location="cpu", weights_only=True).values()), timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        network: torch.nn.Module = create(name, pretrained=False, **options)
        if pretrained:
            network.load_state_dict(dict(zip(network.state_dict(), weights, strict=False)))  # the file's head is left
        return network

    timm.create_model = create_model


def _measure(folder: Path, name: str, size: int, rounds: int) -> dict[str, Any]:
    """Fit one model on the normals, and predict the scans with and without anomalib's pictures, in turns.

    If it fails, `failure.json` names the model and what it was doing, and the error ends this half.
    """
    doing = "learning"
    try:
        fitted, model = _fit(folder, name, size)
        doing = "predicting"
        seconds, scores = _time_predictions(folder, model, rounds)
    except Exception:
        (folder / "failure.json").write_text(json.dumps({"model": name, "doing": doing}))
        raise
    return {"name": name, "fit_seconds": fitted, "seconds": seconds, "scores": scores}


def _fit(folder: Path, name: str, size: int) -> tuple[float, Any]:
    """Return the CPU seconds of fitting, and the model."""
    transform = Compose([Resize((size, size), antialias=True), Normalize(mean=MEAN, std=STD)])
    options = {"backbone": BACKBONE, "layers": LAYERS, "pre_processor": PreProcessor(transform=transform)}
    model = MODELS[name](**options)
    epochs = {"max_epochs": STFPM_EPOCHS} if name == "stfpm" else {}
    began = time.process_time()
    _engine(folder, **epochs).fit(model=model, datamodule=_normals(folder))
    return time.process_time() - began, model


def _time_predictions(folder: Path, model: Any, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the CPU seconds of each round, with and without pictures, and the scores."""
    drawing = model.visualizer
    scores: dict[str, float] = {}
    seconds: dict[str, list[float]] = {"plain": [], "drawn": []}
    for _ in range(rounds):
        for way, visualizer in (("plain", None), ("drawn", drawing)):
            model.visualizer = visualizer
            spent, scores = _predict(folder, model)
            seconds[way].append(spent)
    return seconds, scores


def _engine(folder: Path, **options: Any) -> Engine:
    quiet = {"limit_val_batches": 0, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Engine(accelerator="cpu", devices=1, default_root_dir=folder / "results", **quiet, **options)


def _normals(folder: Path) -> Folder:
    alone = {"test_split_mode": "none", "val_split_mode": "none"}
    return Folder("scans", folder / "normals", train_batch_size=BATCH, num_workers=0, **alone)


def _predict(folder: Path, model: torch.nn.Module) -> tuple[float, dict[str, float]]:
    """Return the CPU seconds of one pass over the scans, and the score of each by the name of its file."""
    data = PredictDataset(folder / "scans")
    began = time.process_time()
    batches = _engine(folder).predict(model, DataLoader(data, batch_size=BATCH, collate_fn=data.collate_fn))
    spent = time.process_time() - began
    paths = [Path(path).stem for batch in batches for path in batch.image_path]
    scores = [score for batch in batches for score in batch.pred_score.flatten().tolist()]
    return spent, dict(zip(paths, scores, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
