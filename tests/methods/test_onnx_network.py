"""Each method's network in ONNX answers as the method does, or the export refuses it by name and reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods import METHODS, build_method, parse_method
from pipeline.methods.artefact import method_spec
from pipeline.methods.base import Method
from pipeline.methods.capabilities import AnomalyMapper
from pipeline.methods.onnx_network import ONNX_METHODS, export_network, start_session
from pipeline.nn.rng import Rng
from pipeline.types import Batch

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
SIZE = 32
# A reason per method, as the message gives it; methods that are listed nowhere may be exported or refused.
REFUSED = {
    "conditional_vae": "attributes",
    "conditioned_ddpm": "random",
    "ddpm": "random",
    "feature_ae": "exporter",
    "knn_features": "exporter",
    "ladder_vae": "random",
    "latent_diffusion": "random",
    "vq_vae2": "depends on the image",
    "vae, restored": "gradient",
    "vqgan, restored": "depends on the image",
}
ANSWERS = {
    "f_anogan, the paper's score": {"name": "f_anogan", "answer": "discrepancy"},
    "vae, restored": {"name": "vae", "restoration": {"steps": 3}},
    "vqgan, restored": {"name": "vqgan", "answer": "restoration"},
}


def smooth(count: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")


def built(values: dict[str, Any]) -> Method:
    method = build_method(parse_method(values), SIZE)
    x = smooth(8, 5)
    method.finish([Batch(x, torch.ones(8, 1, SIZE, SIZE, dtype=torch.bool), tuple("abcdefgh"))])
    return method.eval()


def ask(method: Any, x: torch.Tensor) -> torch.Tensor:
    rng = Rng.scoring(0, [str(row) for row in range(len(x))])
    for name in ("anomaly_map", "reconstruct", "score"):
        if hasattr(method, name):
            return getattr(method, name)(x, rng)
    raise AssertionError(method)


EXPORTED = [
    "ae",
    "ae_u",
    "vae",
    "vampprior",
    "dae",
    "gated_dae",
    "ladder_vq",
    "cold_diffusion",
    "vq_vae",
    "vqgan",
    "diff_ae",
    "synthetic_lesion",
    "dsr",
    "learned_residual",
    "code_surprise",
    "gaussian_features",
    "f_anogan",
    "alpha_gan",
]
QUICK = ("ae_u", "gated_dae", "vq_vae", "f_anogan, the paper's score", *REFUSED.keys() - {"feature_ae"})


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in (*METHODS, *ANSWERS)]
)
def test_the_network_answers_as_the_method_or_is_refused_by_name(
    case: str, small: dict[str, Any], tmp_path: Path
) -> None:
    asked = ANSWERS.get(case, {"name": case})
    method, file = built(small.get(asked["name"], {}) | asked), tmp_path / "network.onnx"
    try:
        kind = export_network(method, file)
    except ConfigError as refusal:
        assert case not in EXPORTED and list(tmp_path.iterdir()) == []
        assert str(refusal).startswith(f"{asked['name']} ") and REFUSED.get(case, "") in str(refusal)
        return
    assert case not in REFUSED
    again = ONNX_METHODS[kind](method_spec(method), file)
    x = smooth(3, 7)
    assert isinstance(again, AnomalyMapper) == isinstance(method, AnomalyMapper)
    torch.testing.assert_close(ask(again, x), ask(method, x), atol=1e-4, rtol=0)
    assert ask(again, x).std(dim=0).max() > 0 or case == "diff_ae"  # which before training answers with zeros


def test_a_file_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"not a network")
    with pytest.raises(ArtefactError, match="onnxruntime"):
        start_session(tmp_path / "network.onnx")


def test_missing_packages_are_named_with_the_command_that_installs_them(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for action in (
        lambda: start_session(tmp_path / "network.onnx"),
        lambda: export_network(built({"name": "ae", **small["ae"]}), tmp_path / "network.onnx"),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'nightread\[export\]'"):
            action()
