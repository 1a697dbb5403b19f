"""The audit page of a finding: the facts of the command, for the roles that audit, and never during a blind reading."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.schema import RunRow
from pipeline.stages.audit.audit_trail import read_audit_trail
from pipeline.stages.audit.flag_models import FORGOTTEN

Open = Callable[..., Any]


def facts(value: Any) -> set[str]:
    """Return every hash and name of the trail that a page must show."""
    if isinstance(value, dict):
        return set().union(*(facts(one) for key, one in value.items() if key not in ("config", "statement")))
    if isinstance(value, list):
        return set().union(*map(facts, value))
    return {value} if isinstance(value, str) and len(value) > 3 else set()


def test_the_page_shows_the_facts_of_the_command(browser: Open, room: Any, listed: list[int], scored: Any) -> None:
    page = html.unescape(browser("aud").get(f"/audit/finding?name={listed[0]}").text)
    trail = read_audit_trail(room.catalogue, room.settings, room.read_finding(listed[0]))
    assert {one for one in facts(trail) if one not in page} == set()
    assert trail["models"] and trail["training"][0]["patients"] and trail["threshold"]["calibration"]
    assert f"nightread reproduce {listed[0]}" in page
    assert scored.planted.lower() not in page.lower()


@pytest.mark.parametrize(("who", "status"), [("aud", 200), ("ann", 403), ("ada", 403)])
def test_it_is_for_those_who_audit(browser: Open, room: Any, listed: list[int], who: str, status: int) -> None:
    answer = browser(who).get(f"/audit/finding?name={listed[0]}")
    assert answer.status_code == status
    entry = room.review.audit.list_entries(limit=1)[0]
    assert ((entry.action, entry.subject) == ("trace", f"finding:{listed[0]}")) is (status == 200)


def test_whoever_may_still_decide_is_refused_until_the_study_is_settled(
    browser: Open, room: Any, listed: list[int], list_again: Callable[[str], int]
) -> None:
    study = room.read_finding(listed[0]).study_id
    again = list_again(study)
    lea, address = browser("lea"), f"/audit/finding?name={listed[0]}"
    reasons = []

    def refused() -> bool:
        answer = lea.get(address)
        assert answer.status_code in (200, 403)
        said = "still being read" in answer.text or "still read blind" in answer.text
        assert said is (answer.status_code == 403)
        assert ("reproduce" in answer.text) is (answer.status_code == 200)
        scan = lea.get(f"/scan/{listed[0]}").text
        assert (f'href="{address}"' in scan) is (answer.status_code == 200), "a link leads where it opens"
        reasons.extend(re.findall("Its audit page opens once [^<]*", scan))
        return bool(answer.status_code == 403)

    assert refused()
    lea.decide(listed[0], "dismissed")
    assert refused(), "the study is read blind in its other row"
    browser("ben").decide(again, "second-opinion")
    assert refused(), "lea may give the second opinion"
    lea.decide(again, "confirmed")
    assert refused(), "the page would tell how many of the run's other scans are flagged"
    for number in listed[1:]:
        lea.decide(number, "dismissed")
    assert not refused()
    assert ["its run" in reason for reason in reasons] == [False, False, False, True]
    assert "Audit of this score" not in browser("ann").get(f"/scan/{listed[0]}").text


def test_an_erasure_is_said_of_the_patient_and_of_the_models(browser: Open, room: Any, listed: list[int]) -> None:
    finding = room.read_finding(listed[0])
    with room.catalogue.session() as session:
        session.add(Erasure(patient_id=finding.patient_id))
        run = next(row for row in session.query(RunRow).filter(RunRow.kind == "train"))
        run.summary = {**run.summary, FORGOTTEN: {"a" * 32: ["train"]}}
        name = run.run_id
    page = browser("aud").get(f"/audit/finding?name={listed[0]}").text
    assert "data was erased on" in html.unescape(page) and "not finished" in page
    assert f"{name} learned from 1 patients who were erased since" in page.replace(name.capitalize(), name)


@pytest.mark.parametrize("name", ["", "999999", "no such study", "' OR 1=1", "%"])
def test_an_unknown_finding_is_not_found(browser: Open, name: str) -> None:
    answer = browser("aud").client.get("/audit/finding", params={"name": name})
    assert answer.status_code == 404 and "nightread flagged" in answer.text


def test_the_audit_log_leads_to_the_page(browser: Open, listed: list[int]) -> None:
    browser("ann").get(f"/scan/{listed[0]}")
    page = browser("aud").get("/audit").text
    assert f'href="/audit/finding?name={listed[0]}"' in page and 'action="/audit/finding"' in page
