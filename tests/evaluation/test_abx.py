"""ABX and the quality of units: perfect and useless representations, and figures that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import EmptySelection
from pipeline.evaluation.abx import Spoken, abx_error, draw_triples, warped_angle
from pipeline.evaluation.unit_quality import cross_table, entropy_bits, measure_units, mutual_bits

SPOKEN = [Spoken(unit, speaker) for speaker in ("S1", "S2", "S3") for unit in "abcd" for _ in range(3)]
TRIPLES = draw_triples(SPOKEN, 240, 0)


def test_triples_are_across_speakers_and_even_over_pairs() -> None:
    pairs = {}
    for one in TRIPLES:
        a, b, x = (SPOKEN[place] for place in (one.a, one.b, one.x))
        assert a.speaker == b.speaker != x.speaker
        assert a.unit == x.unit != b.unit
        pairs[a.unit, b.unit] = pairs.get((a.unit, b.unit), 0) + 1
    assert set(pairs.values()) == {20}
    assert len(pairs) == 12


def _frames(of: str, noise: float = 0.01) -> list[np.ndarray]:
    rng, names = np.random.default_rng(1), sorted({getattr(one, of) for one in SPOKEN})
    eye = np.eye(len(names))
    lengths = rng.integers(3, 7, len(SPOKEN))
    return [
        eye[names.index(getattr(one, of))] + rng.normal(0, noise, (count, len(names)))
        for one, count in zip(SPOKEN, lengths, strict=True)
    ]


def test_a_representation_of_phonemes_makes_no_error_and_one_of_speakers_only_errors_of_chance() -> None:
    assert abx_error(_frames("unit"), SPOKEN, TRIPLES).value == 0
    nothing = abx_error(_frames("speaker", noise=0.0), SPOKEN, TRIPLES)
    assert nothing.value == 0.5  # A and B are equally far from X: half an error each
    assert abx_error([np.ones((3, 2)) for _ in SPOKEN], SPOKEN, TRIPLES).value == 0.5


def test_warping_does_not_mind_pace_but_order() -> None:
    slow, fast = np.repeat(np.eye(3), 4, axis=0), np.eye(3)
    assert warped_angle(slow, fast) == pytest.approx(0, abs=1e-6)
    assert warped_angle(np.eye(2)[:1], np.eye(2)[1:]) == pytest.approx(0.5)  # a right angle is half of a half turn
    assert warped_angle(fast, fast[::-1]) > 0.3


def test_without_a_shared_phoneme_there_is_nothing_to_compare() -> None:
    with pytest.raises(EmptySelection):
        draw_triples([Spoken("a", "S1"), Spoken("b", "S1"), Spoken("c", "S2")], 10, 0)


def test_bits_and_purity_in_closed_form() -> None:
    assert entropy_bits(np.arange(8)) == pytest.approx(3)
    assert mutual_bits(np.eye(4)) == pytest.approx(2)
    assert mutual_bits(np.ones((4, 4))) == pytest.approx(0)
    assert cross_table(np.array([5, 5, 9]), ["x", "y", "x"]).tolist() == [[1, 1], [1, 0]]
    quality = measure_units(np.array([0, 0, 1, 1]), ["a", "b", "c", "c"], ["S1", "S2", "S1", "S2"], 50.0)
    assert quality.bits_per_second == pytest.approx(50)
    assert quality.perplexity == pytest.approx(2)
    assert quality.purity == pytest.approx(3 / 4)
    assert quality.speaker_share == pytest.approx(0)
    assert measure_units(np.array([0, 1]), ["a", "a"], ["S1", "S2"], 1.0).speaker_share == pytest.approx(1)
