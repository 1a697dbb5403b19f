"""Captions: all are parsed back exactly, what the grammar lacks is refused by name, masks give side and size."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.images.captions import GRAMMAR, HEAD, Caption, describe, describe_lesion, parse_caption, parse_words
from pipeline.errors import ConfigError

BRAIN = Caption(plane="axial", image="FLAIR", body="brain")


@st.composite
def captions(draw: st.DrawFn) -> Caption:
    """Any caption of the grammar."""
    words = {name: draw(st.sampled_from(("", *allowed))) for name, allowed in GRAMMAR.items()}
    if not any(words[name] for name in HEAD):
        words["image"] = draw(st.sampled_from(GRAMMAR["image"]))
    return Caption(**(words if words["finding"] == "lesion" else {**words, "side": "", "size": ""}))


@given(captions())
def test_a_caption_is_parsed_back_exactly(caption: Caption) -> None:
    assert parse_caption(caption.write()) == caption
    assert parse_caption(caption.write()).write() == caption.write()


def test_different_captions_are_written_differently() -> None:
    findings = [{}, {"finding": "no finding"}] + [
        {"finding": "lesion", "side": side, "size": size}
        for side, size in product(("", *GRAMMAR["side"]), ("", *GRAMMAR["size"]))
    ]
    every = [Caption(image="MR", third=third, **words) for third in ("", *GRAMMAR["third"]) for words in findings]
    assert len({caption.write() for caption in every}) == len(every) == 4 * 18


def test_the_text_is_that_of_the_grammar() -> None:
    text = "axial FLAIR brain, upper third, lesion left, large"
    caption = parse_caption(text)
    assert caption == Caption("", "axial", "FLAIR", "brain", "", "upper third", "lesion", "left", "large")
    assert parse_words("upper third, lesion left") == {"third": "upper third", "finding": "lesion", "side": "left"}
    assert caption.includes(parse_words("lesion left")) and not caption.includes(parse_words("lesion right"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "axial FLAIR brain"),
        ("axial FLAIR spleen", "spleen"),
        ("axial FLAIR brain, lesion below", "below"),
        ("axial FLAIR brain, huge", "huge"),
        ("FLAIR axial brain", "axial FLAIR brain"),
        ("axial coronal brain", "coronal"),
        ("axial FLAIR brain, no finding, large", "lesion left"),
        ("axial FLAIR brain of somebody", "somebody"),
        ("axial  FLAIR brain", "axial FLAIR brain"),
    ],
)
def test_what_the_grammar_lacks_is_refused_by_name(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_caption(text)


def test_attributes_and_finding_make_a_caption() -> None:
    about = {"modality": "MR", "body_part": "BRAIN", "relative_position": 1.0, "finding": "lesion right, small"}
    assert describe(about) == parse_caption("MR brain, upper third, lesion right, small")
    assert describe(about, BRAIN) == parse_caption("axial FLAIR brain, upper third, lesion right, small")
    assert describe({"relative_position": 0.3}) is None
    assert describe({"modality": "CR", "view": "PA", "body_part": "NOSE"}) == parse_caption("PA radiograph")


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (slice(0, 2), slice(0, 4), "lesion left, small"),  # 8 of 1024 pixels
        (slice(0, 4), slice(24, 28), "lesion right, medium"),  # 16 of 1024
        (slice(0, 8), slice(12, 20), "lesion central, large"),  # 64 of 1024, half of it on either side
        (slice(0, 4), slice(9, 19), "lesion left, large"),  # 7 of 10 columns are left
    ],
)
def test_a_mask_gives_side_and_size(rows: slice, columns: slice, words: str) -> None:
    mask = np.zeros((32, 32), bool)
    mask[rows, columns] = True
    assert describe_lesion(BRAIN, mask).write_finding() == words
    assert (
        describe_lesion(BRAIN, None).write_finding() == describe_lesion(BRAIN, ~mask & mask).write_finding() == "lesion"
    )
