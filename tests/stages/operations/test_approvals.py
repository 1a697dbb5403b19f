"""Approval on a written gate report: recorded as by the command, once however often it is sent, never when stale."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.promotion_forms import SeenState
from pipeline.data.catalogue.promotion_records import list_promotions, verify_promotions
from pipeline.errors import PromotionRefused
from pipeline.stages.operations.approvals import RouteModels, approve, list_route_models, refuse
from pipeline.stages.operations.gate_report import REPORT
from pipeline.stages.operations.promotion import rollback
from pipeline.stages.operations.promotion_move import Approval
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import find_champion

BOSS = Approval("A. Meyer", "a new scanner")


@pytest.fixture
def catalogue(judged: Any) -> Any:
    with Catalogue.open(judged.settings) as opened:
        yield opened


def models(judged: Any, catalogue: Catalogue) -> RouteModels:
    (one,) = list_route_models(judged.settings, catalogue)
    return one


def seen(one: RouteModels, basis: str, token: str = "token-of-a-form") -> SeenState:
    return SeenState(token, one.last, one.champion.version, basis)


def test_a_challenger_is_promoted_on_its_report_once(judged: Any, catalogue: Catalogue) -> None:
    before = models(judged, catalogue)
    (waiting,) = before.waiting
    assert (waiting.run, waiting.obstacle, before.back) == (judged.challenger, "", None)
    form = seen(before, waiting.report_sha256)
    for _ in range(2):  # a form that is sent twice
        assert approve(judged.settings, catalogue, judged.challenger, BOSS, form).replaced in ("1", "2")
    (record,) = list_promotions(catalogue)
    data = (judged.settings.runs / judged.challenger / REPORT).read_bytes()
    assert record.report_sha256 == hashlib.sha256(data).hexdigest()
    assert (record.who, record.why, record.action) == ("A. Meyer", "a new scanner", "promote")
    assert (record.champion.run, record.before and record.before.run) == (judged.challenger, judged.champion)
    assert verify_promotions(catalogue, Chain.open(judged.settings, catalogue)).problems == ()
    after = models(judged, catalogue)
    assert (after.champion.run, after.waiting, after.back and after.back.run) == (
        judged.challenger, (), judged.champion,
    )  # fmt: skip
    with pytest.raises(PromotionRefused, match="other words"):
        approve(judged.settings, catalogue, judged.challenger, replace(BOSS, why="something else"), form)
    back = seen(after, after.back.sha256 if after.back else "", "token-of-another")
    for _ in range(2):
        assert rollback(judged.settings, after.route, BOSS, back).run == judged.champion
    assert [one.action for one in list_promotions(catalogue)] == ["rollback", "promote"]


def test_a_refusal_is_recorded_and_moves_nothing(judged: Any, catalogue: Catalogue) -> None:
    one = models(judged, catalogue)
    form = seen(one, one.waiting[0].report_sha256)
    record = refuse(judged.settings, catalogue, judged.challenger, BOSS, form)
    assert (record.action, record.champion.run, record.before, record.report_sha256) == (
        "refuse", judged.challenger, None, one.waiting[0].report_sha256,
    )  # fmt: skip
    after = models(judged, catalogue)
    assert (after.champion.run, after.waiting, after.back) == (judged.champion, (), None)
    champion = find_champion(judged.settings, one.route)
    assert champion is not None and champion.path.endswith(judged.champion)
    with pytest.raises(PromotionRefused, match="has no champion before it"):
        rollback(judged.settings, one.route, BOSS)  # a refused challenger is nothing to go back to
    with pytest.raises(PromotionRefused, match="is the champion"):
        refuse(judged.settings, catalogue, judged.champion, BOSS)


def test_a_form_of_before_another_decision_is_refused(judged: Any, catalogue: Catalogue) -> None:
    one = models(judged, catalogue)
    basis = one.waiting[0].report_sha256
    for stale, reason in (
        (replace(seen(one, basis), last=7), "after this page was loaded"),
        (replace(seen(one, basis), champion="9"), "is version 1 now"),
        (seen(one, "0" * 64), "measured again"),
    ):
        with pytest.raises(PromotionRefused, match=reason):
            approve(judged.settings, catalogue, judged.challenger, BOSS, stale)
    assert list_promotions(catalogue) == []


@pytest.mark.parametrize(("change", "reason"), [
    ({"lines": [{"gate": "AUROC", "passed": False, "sentence": "It is worse."}]}, "does not pass every gate"),
    ({"challenger_sha256": "0" * 64}, "Measure them again"),
    ({"champion_sha256": "0" * 64}, "Measure them again"),
    ({"lines": 3}, "damaged"),
    (None, "not been measured yet"),
])  # fmt: skip
def test_what_stands_in_the_way_is_said_and_enforced(
    judged: Any, catalogue: Catalogue, change: dict[str, Any] | None, reason: str
) -> None:
    folder = RunFolder(judged.settings.runs / judged.challenger)
    if change is None:
        (folder.path / REPORT).unlink()
    else:  # `passed` of the file is not believed
        folder.write(REPORT, {**folder.read(REPORT), **change, "passed": True})
    one = models(judged, catalogue)
    assert reason in one.waiting[0].obstacle
    with pytest.raises(Exception, match=reason):
        approve(judged.settings, catalogue, judged.challenger, BOSS, seen(one, one.waiting[0].report_sha256))
    assert list_promotions(catalogue) == []
