"""A model's card is made from catalogue and run folder alone: a night can write it."""

from __future__ import annotations

from typing import Any

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.stages.operations.model_card import list_scored_models, read_model_card


def test_the_card_of_the_model_that_scored(scored: Any) -> None:
    with Catalogue.open(scored.settings) as catalogue:
        sha256 = catalogue.run(scored.run_id).sha256
        card = read_model_card(catalogue, scored.settings, sha256)
        assert sha256 in [one["sha256"] for one in list_scored_models(catalogue)]
        assert read_model_card(catalogue, scored.settings, sha256[:7]) is None
    assert card is not None and card["route"] == "phantom-mr" and card["sha256"] == sha256
    assert {row["set"] for row in card["data"]} == {"train", "validate"} and card["calibration"]["n"] > 0
