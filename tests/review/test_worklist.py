"""The worklist: priority, states that are derived, filters, pages by key, and blindness until somebody decided."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from pipeline.config import ReviewPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.review.refusals import BadInput, NotAllowed, UnknownFinding
from pipeline.review.services import Review
from pipeline.review.worklist import STATES, WorklistQuery

NAMES = "abcdefgh"


@pytest.fixture
def listed(nights: Any) -> dict[str, int]:
    """Eight flagged scans, the first the most unusual: four brains, four chests."""
    nights.scans(NAMES[:4])
    nights.scans(NAMES[4:], "CT", "CHEST")
    unblinded = ReviewPolicy(sample_share=0, sample_least=0)
    nights.score({name: 0.005 * n for n, name in enumerate(NAMES, start=1)}, policy=unblinded)
    return {name: nights.finding(name) for name in NAMES}


def ids(review: Review, **query: Any) -> list[int]:
    return [row.finding_id for row in review.worklist.read_page(WorklistQuery(**query)).rows]


def test_the_most_unusual_comes_first_in_words(review: Review, listed: dict[str, int]) -> None:
    page = review.worklist.read_page(WorklistQuery())
    assert [row.finding_id for row in page.rows] == list(listed.values())
    row = page.rows[3]
    assert (row.modality, row.body_part, row.route, row.model, row.state) == (
        "MR", "BRAIN", "phantom-mr", "some-model", "new"
    )  # fmt: skip
    assert row.words == "more unusual than 99.0 % of 99 normal scans"  # p = 0.02 of 100: one exceeds it
    assert 0 <= row.age_hours < 1


def test_pages_follow_each_other_both_ways_without_gap_or_repeat(review: Review, listed: dict[str, int]) -> None:
    query, seen = WorklistQuery(limit=3), []
    page = review.worklist.read_page(query)
    assert not page.has_previous
    while True:
        seen += [row.finding_id for row in page.rows]
        if not page.has_next:
            break
        page = review.worklist.read_page(replace(query, after=seen[-1]))
        assert page.has_previous
    assert seen == list(listed.values())
    back = review.worklist.read_page(replace(query, before=seen[6]))
    assert [row.finding_id for row in back.rows] == seen[3:6] and back.has_next and back.has_previous
    first = review.worklist.read_page(replace(query, before=seen[2]))
    assert [row.finding_id for row in first.rows] == seen[:2] and not first.has_previous


def test_filters_and_neighbours(review: Review, listed: dict[str, int], people: Any, form: Any) -> None:
    findings = list(listed.values())
    assert ids(review, modality="CT") == ids(review, body_part="CHEST") == findings[4:]
    assert ids(review, route="phantom-mr", model="a" * 64) == findings
    assert ids(review, route="other") == ids(review, min_age_hours=1) == []
    assert ids(review, max_age_hours=1) == findings
    review.decisions.decide(form(findings[1], "dismissed"), people["ann"])
    review.locks.take(findings[2], people["ben"])
    assert ids(review, states=frozenset({"dismissed"})) == ids(review, reader="ann") == [findings[1]]
    assert ids(review, states=frozenset({"in-review"})) == ids(review, holder="ben") == [findings[2]]
    still_new = WorklistQuery(states=frozenset({"new"}))
    assert [row.finding_id for row in review.worklist.read_page(still_new).rows] == [findings[0], *findings[3:]]
    assert review.worklist.find_neighbours(findings[1], still_new) == (findings[0], findings[3])
    assert review.worklist.find_neighbours(findings[0], WorklistQuery()) == (None, findings[1])
    assert review.worklist.facets().modality == ("CT", "MR")


def test_counts_agree_with_pages_in_every_state(review: Review, listed: dict[str, int], people: Any, form: Any) -> None:
    findings = list(listed.values())
    for finding, outcome in zip(findings, ("confirmed", "dismissed", "unsure", "second-opinion"), strict=False):
        review.decisions.decide(form(finding, outcome), people["ann"])
    undone = review.decisions.decide(form(findings[4]), people["ann"])
    review.decisions.undo(findings[4], undone.id, "undo-this", people["ann"])
    for finding in (
        findings[0],
        findings[3],
        findings[4],
        findings[5],
    ):  # a closed one that is looked at again stays closed
        review.locks.take(finding, people["ben"])
    for query in (WorklistQuery(), WorklistQuery(modality="MR"), WorklistQuery(body_part="CHEST")):
        counts = review.worklist.count_states(query)
        rows = review.worklist.read_page(query).rows
        assert counts["all"] == len(rows) == sum(counts[state] for state in STATES)
        for state in STATES:
            pages = review.worklist.read_page(replace(query, states=frozenset({state}))).rows
            assert counts[state] == len(pages) == sum(row.state == state for row in rows), state
    assert review.worklist.count_states(WorklistQuery())["in-review"] == 3


def test_search_by_the_beginning_of_a_pseudonym(review: Review, listed: dict[str, int], name_of: Any) -> None:
    assert ids(review, search=name_of("study", "c")[:12]) == [listed["c"]]
    assert ids(review, search=name_of("patient", "c").upper()[:10]) == [listed["c"]]
    assert ids(review, search="0123456789abcdef") == []
    for wrong in ("abc", "%%%%", "Zyxwname"):
        with pytest.raises(BadInput, match=r"\b4\b"):
            ids(review, search=wrong)
    with pytest.raises(BadInput, match="not a state"):
        ids(review, states=frozenset({"gone"}))
    with pytest.raises(UnknownFinding):
        review.worklist.read_page(WorklistQuery(after=10_000))


def test_search_by_accession_number_is_permitted_and_audited(
    review: Review, listed: dict[str, int], any_settings: Settings, people: Any, name_of: Any
) -> None:
    with Crosswalk.open(any_settings) as crosswalk:
        keys = [name_of(level, "b") for level in ("patient", "study", "series", "instance")]
        identity = RawIdentity("", "P1", "1.2.3", "1.2.3.4", "1.2.3.4.5", "ACC-4711", "20260101")
        crosswalk.remember(Ids(*keys, identified=True, key_id=crosswalk.key_id), identity)
    matches = review.worklist.by_accession(" ACC-4711 ", people["lea"])
    assert matches == (listed["b"],) and ids(review, accession_ids=matches) == [listed["b"]]
    assert review.worklist.by_accession("ACC-0815", people["lea"]) == ()
    with pytest.raises(NotAllowed):
        review.worklist.by_accession("ACC-4711", people["ann"])
    lines = [(e.user, e.action, e.detail) for e in reversed(review.audit.list_entries())]
    assert lines == [
        ("lea", "accession-search", {"found": 1}),
        ("lea", "accession-search", {"found": 0}),
        ("ann", "accession-search", {"refused": True}),
    ]
    assert not any("4711" in line for line in review.audit.write_lines())


def test_blind_until_decided(nights: Any, catalogue: Catalogue, review: Review, people: Any, form: Any) -> None:
    """Everything the list says of open rows is the same for flagged and sampled ones, except the scan itself."""
    nights.scans(range(30))
    nights.score({n: 0.01 if n < 5 else 0.7 for n in range(30)}, policy=ReviewPolicy(sample_share=1))
    page = review.worklist.read_page(WorklistQuery())
    assert len(page.rows) == 30
    free = ("finding_id", "study_id", "patient_id", "arrived_at", "age_hours", "scored_at")
    visible = [{k: v for k, v in asdict(row).items() if k not in free} for row in page.rows]
    assert all(row == visible[0] for row in visible)
    assert (page.rows[0].revealed, page.rows[0].words, page.rows[0].p_value, page.rows[0].score) == (False,) + (
        None,
    ) * 3
    sampled = next(nights.finding(n) for n in range(5, 30) if nights.finding(n) in ids(review))
    asked = review.decisions.decide(form(sampled, "second-opinion"), people["ann"])
    assert review.worklist.read_row(sampled).words is None  # the second reader is as blind as the first
    review.decisions.decide(form(sampled, "dismissed", seen=asked.id), people["ben"])
    assert review.worklist.read_row(sampled).words == "more unusual than 30.3 % of 99 normal scans"


def test_nothing_is_hidden_where_nothing_was_drawn(nights: Any, review: Review) -> None:
    nights.scans(range(5))
    nights.score({n: 0.01 if n < 2 else 0.7 for n in range(5)}, policy=ReviewPolicy(sample_share=0, sample_least=0))
    assert [row.revealed for row in review.worklist.read_page(WorklistQuery()).rows] == [True, True]
