"""Conditions: what is missing has a vector of its own, hiding is by the row's key, and nothing untrained is used."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pipeline.dicom.decode.attributes import AGE_BANDS, InstanceAttributes
from pipeline.dicom.decode.vocabulary import VIEW_CODES
from pipeline.errors import ConfigError
from pipeline.nn.condition import VOCABULARY, ConditionConfig, Conditions
from pipeline.nn.rng import Rng

MR = {"modality": "MR", "sex": "F", "relative_position": 0.5}


def trained(**values: object) -> Conditions:
    """Conditions that have seen every word."""
    conditions = Conditions(ConditionConfig(**values))
    for name in conditions.fields:
        getattr(conditions, f"seen_{name}").fill_(0.1)
    return conditions.eval()


def test_the_vector_is_the_sum_of_the_attributes_vectors() -> None:
    conditions = trained(use=("modality", "sex"), width=4)
    words = conditions.words
    expected = words["modality"].weight[VOCABULARY["modality"].index("MR") + 1] + words["sex"].weight[1]
    assert_close(conditions([MR], 1)[0], expected)


@pytest.mark.parametrize("word", [None, "", "MRI", "mr", 7, ["MR"]])
def test_values_that_are_not_words_are_unknown(word: object) -> None:
    conditions = trained(use=("modality",))
    assert_close(conditions([{"modality": word}], 1), conditions([{}], 1))
    assert_close(conditions([{}], 1)[0], conditions.words["modality"].weight[0])


def test_a_word_counts_once_a_training_image_had_it() -> None:
    conditions = Conditions(ConditionConfig(use=("modality",))).eval()
    assert_close(conditions([MR], 1), conditions([{}], 1))
    conditions.train()([MR], 1)
    assert not torch.allclose(conditions.eval()([MR], 1), conditions([{}], 1))
    assert_close(conditions([{"modality": "CT"}], 1), conditions([{}], 1))
    again = Conditions(ConditionConfig(use=("modality",))).eval()
    again.load_state_dict(conditions.state_dict())
    assert_close(again([MR], 1), conditions([MR], 1))


def test_positions_differ_and_none_is_not_the_middle() -> None:
    conditions = trained(use=("relative_position",))
    rows = [{"relative_position": p} for p in (0.0, 0.25, 0.5, 0.75, 1.0)] + [{}]
    distance = torch.cdist(conditions(rows, 6), conditions(rows, 6)) + 9 * torch.eye(6)
    assert distance.min() > 0.05
    assert_close(conditions(rows, 6)[5], conditions.nowhere)


def test_hiding_follows_the_key_and_its_rate() -> None:
    conditions = trained(use=("modality", "sex", "relative_position"), drop=0.2, drop_all=0.1)
    n = 4000
    stated = conditions.read([MR] * n, n)
    hidden = conditions.hide(stated, Rng(range(n)))
    gone = torch.cat([hidden.words == 0, hidden.position.isnan()[:, None]], dim=1).double()
    # 1 - 0.9 * 0.8 = 0.28 each; all three: 0.1 + 0.9 * 0.008. Five standard errors of 4000 draws.
    for share in gone.mean(dim=0).tolist():
        assert share == pytest.approx(0.28, abs=5 * math.sqrt(0.28 * 0.72 / n))
    assert gone.prod(dim=1).mean().item() == pytest.approx(0.1072, abs=5 * math.sqrt(0.1072 * 0.8928 / n))
    alone = conditions.hide(conditions.read([MR], 1), Rng([17]))
    assert torch.equal(alone.words[0], hidden.words[17])
    assert_close(alone.position[0], hidden.position[17], equal_nan=True)


def test_nothing_is_hidden_without_randomness() -> None:
    conditions = trained(drop=1.0, drop_all=1.0)
    assert not torch.allclose(conditions([MR], 1), conditions([{}], 1))
    assert_close(conditions([MR], 1, Rng([1])), conditions([{}], 1))


def test_the_vocabulary_knows_every_age_band() -> None:
    bands = {InstanceAttributes(age_years=age).age_band for age in range(0, 91)}
    assert bands == set(VOCABULARY["age_band"]) and len(AGE_BANDS) + 1 == len(bands)


def test_the_vocabulary_knows_every_view_that_a_code_stands_for() -> None:
    assert set(VIEW_CODES.values()) <= set(VOCABULARY["view"])


def test_rows_and_what_is_known_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"\b2\b.*attributes.*\b1\b"):
        trained()([MR], 2)
    assert trained()((), 2).shape == (2, 16)
