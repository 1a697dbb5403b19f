"""Sets are assigned once per patient, from the draw alone; labels only decide which fractions apply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from pipeline.config import Settings
from pipeline.data.catalogue.admission import draw_of
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.labels.label_evidence import PatientEvidence
from pipeline.data.labels.labels import add_label
from pipeline.data.sets.splits import SplitPolicy, assign_sets
from pipeline.types import LABELLED_SETS, NORMAL_SETS

Enter = Callable[..., str]
Sets = Callable[[Catalogue], dict[str, "str | None"]]
POLICY = SplitPolicy()


def _evidence(labels: set[str], official: set[str] = frozenset(), draw: float = 0.5) -> PatientEvidence:  # type: ignore[assignment]
    return PatientEvidence("p", draw, set(labels), set(official))


@pytest.mark.parametrize(
    ("labels", "policy", "group"),
    [
        ({"normal"}, SplitPolicy(), "normals"),
        ({"abnormal"}, SplitPolicy(), "others"),
        ({"normal", "abnormal"}, SplitPolicy(), "others"),
        ({"normal", "abnormal"}, SplitPolicy(mixed_patients=True), "mixed"),
        ({"abnormal"}, SplitPolicy(mixed_patients=True), "others"),
        ({"normal", "unknown"}, SplitPolicy(), "normals"),
    ],
)
def test_fractions_hold(labels: set[str], policy: SplitPolicy, group: str) -> None:
    # 20 000 fresh pseudonyms; under the stated fractions this p-value is below 1e-6 once in a million runs, and the
    # names are fixed, so the test is deterministic. Power: a fraction wrong by 0.02 gives p < 1e-6 practically always.
    from hashlib import sha256

    draws = [draw_of(sha256(str(number).encode()).hexdigest()) for number in range(20_000)]
    sets = [policy.set_of(draw, _evidence(labels))[0] for draw in draws]  # type: ignore[index]
    fractions = {name: value for name, value in getattr(policy, group).items() if value}
    assert set(sets) == set(fractions)
    observed = [sets.count(name) for name in fractions]
    expected = [value * len(draws) for value in fractions.values()]
    assert chisquare(observed, expected).pvalue > 1e-6
    wrong = [expected[0] + 0.02 * len(draws), expected[1] - 0.02 * len(draws), *expected[2:]]
    assert chisquare(observed, wrong).pvalue < 1e-4  # negative control: the test can fail


def test_golden_sets_of_normals() -> None:
    # test 0.1, gate 0.04, develop 0.06, calibrate 0.2, validate 0.1, train 0.5, in this order on [0, 1)
    edges = {0.0: "test", 0.0999: "test", 0.1001: "gate", 0.1401: "develop", 0.2001: "calibrate", 0.3999: "calibrate"}
    edges |= {0.4001: "validate", 0.5001: "train", 0.9999999999: "train"}
    assert {draw: POLICY.set_of(draw, _evidence({"normal"}))[0] for draw in edges} == edges  # type: ignore[index]


@pytest.mark.parametrize("labels", [set(), {"unknown"}])
def test_patients_without_labels_are_incoming(labels: set[str]) -> None:
    assert POLICY.set_of(0.5, _evidence(labels)) is None


@pytest.mark.parametrize("labels", [set(), {"unknown"}])
def test_a_share_of_patients_without_labels_enters_train(labels: set[str]) -> None:
    policy = SplitPolicy(unlabelled=0.25)
    assert policy.set_of(0.74, _evidence(labels)) is None
    assert policy.set_of(0.76, _evidence(labels)) == ("train", "unlabelled")
    assert policy.set_of(0.76, _evidence(labels, {"test"})) == ("test", "official test")


@budget(deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.booleans(), st.sampled_from(["", "train", "validate", "test"]))
def test_an_abnormal_label_keeps_out_of_normal_sets(draw: float, normal_too: bool, official: str) -> None:
    labels = {"abnormal"} | ({"normal"} if normal_too else set())
    assigned = POLICY.set_of(draw, _evidence(labels, {official} if official else set()))
    assert assigned is not None and assigned[0] in LABELLED_SETS


@pytest.mark.parametrize(
    ("official", "labels", "allowed"),
    [
        ({"train"}, {"normal"}, {"train", "validate"}),
        ({"validate"}, {"normal"}, {"validate", "calibrate", "develop"}),
        ({"test"}, {"normal"}, {"test"}),
        ({"test"}, {"abnormal"}, {"test"}),
        ({"test"}, {"unknown"}, {"test"}),
        ({"train"}, {"abnormal"}, {"develop"}),
        ({"validate"}, {"abnormal"}, {"develop"}),
        ({"train", "test"}, {"normal"}, {"test"}),
        ({"train", "validate"}, {"normal"}, {"validate", "calibrate", "develop"}),
    ],
)
def test_official_splits_are_kept(official: set[str], labels: set[str], allowed: set[str]) -> None:
    sets = {POLICY.set_of(step / 1000, _evidence(labels, official))[0] for step in range(1000)}  # type: ignore[index]
    assert sets == allowed
    ignoring = SplitPolicy(official="ignore")
    if labels != {"unknown"}:
        assert {ignoring.set_of(s / 1000, _evidence(labels, official))[0] for s in range(1000)} != allowed  # type: ignore[index]


def test_mixed_patients_with_an_official_split_stay_on_their_side() -> None:
    policy = SplitPolicy(mixed_patients=True)
    evidence = {side: _evidence({"normal", "abnormal"}, {side}) for side in ("train", "test")}
    sides = {side: {policy.set_of(s / 500, one)[0] for s in range(500)} for side, one in evidence.items()}  # type: ignore[index]
    assert sides == {"train": {"train", "validate"}, "test": {"test"}}


@pytest.mark.parametrize(
    "fractions",
    [
        {"normals": {"train": 0.5}},
        {"normals": {"train": 1.5, "test": -0.5}},
        {"others": {"train": 0.5, "test": 0.5}},
        {"normals": {"holdout": 1.0}},
    ],
)
def test_impossible_policies_are_refused(fractions: dict) -> None:
    with pytest.raises(ValidationError):
        SplitPolicy(**fractions)


def test_assignment_reads_labels_of_every_level(catalogue: Catalogue, enter: Enter, sets_of: Sets) -> None:
    ill = [enter(catalogue, level, ["normal"], draw=0.9) for level in ("a", "b", "c", "d")]
    for name, level in zip(("a", "b", "c", "d"), ("patient", "study", "series", "instance"), strict=True):
        enter(catalogue, name, ["abnormal"], level=level)
    well = enter(catalogue, "well", ["normal", "normal"], level="study", draw=0.9)
    assign_sets(catalogue, POLICY)
    assigned = sets_of(catalogue)
    assert assigned[well] == "train" and not {assigned[key] for key in ill} & set(NORMAL_SETS)


def test_a_withdrawn_label_no_longer_counts(catalogue: Catalogue, enter: Enter, sets_of: Sets) -> None:
    from sqlalchemy import select

    from pipeline.data.catalogue.schema import LabelRow

    key = enter(catalogue, "p", ["abnormal"], draw=0.9)
    with catalogue.session() as session:
        subject = session.scalars(select(LabelRow.subject)).one()
        add_label(session, "instance", subject, "normal", source="second reading")
    assign_sets(catalogue, POLICY)
    assert sets_of(catalogue)[key] == "train"


def test_assigned_sets_do_not_change(catalogue: Catalogue, enter: Enter, sets_of: Sets) -> None:
    key = enter(catalogue, "p", ["normal"], draw=0.9)
    counts = assign_sets(catalogue, POLICY)
    assert counts == {"train": 1}
    enter(catalogue, "p", ["abnormal"], level="study")
    assign_sets(catalogue, SplitPolicy(normals={"test": 1.0}, others={"test": 1.0}))
    assert sets_of(catalogue)[key] == "train"


def test_nobody_without_an_identity_is_assigned(catalogue: Catalogue, enter: Enter, sets_of: Sets) -> None:
    stranger = enter(catalogue, "stranger", ["normal"], identified=False)
    ill = enter(catalogue, "ill stranger", ["abnormal"], identified=False)
    single = enter(catalogue, "image", ["normal"], identified=False, image_is_subject=True)
    counts = assign_sets(catalogue, POLICY)
    assigned = sets_of(catalogue)
    assert assigned[stranger] is None and assigned[ill] is None and assigned[single] is not None
    assert counts["unassigned"] == 2


@budget(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(16)),
    subset=st.sets(st.integers(0, 15), min_size=1),
    cut=st.integers(0, 16),
)
def test_order_and_subset_of_ingest_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, enter: Enter, sets_of: Sets, order: list, subset: set, cut: int
) -> None:
    def run(people: list, cut: int) -> dict[str, str | None]:
        folder: Path = tmp_path_factory.mktemp("w")
        with Catalogue.open(Settings(workspace=folder)) as catalogue:
            for position, number in enumerate(people):
                if position == cut:
                    assign_sets(catalogue, POLICY)
                enter(catalogue, number, ["abnormal" if number % 3 == 0 else "normal"])
            assign_sets(catalogue, POLICY)
            return sets_of(catalogue)

    whole, part = run(order, cut), run([number for number in range(16) if number in subset], 99)
    assert {key: whole[key] for key in part} == part and len(part) == len(subset)


@budget(deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 0.6))
def test_sharing_normals_differently_moves_nobody_into_or_out_of_a_held_out_set(draw: float, train: float) -> None:
    other = SplitPolicy(
        normals={"test": 0.1, "gate": 0.04, "develop": 0.06, "train": train, "validate": 0.1, "calibrate": 0.7 - train}
    )
    before, after = (p.set_of(draw, _evidence({"normal"})) for p in (POLICY, other))
    assert before is not None and after is not None
    assert (before[0] in LABELLED_SETS) == (after[0] in LABELLED_SETS)


def test_only_the_patients_named_are_given_sets(catalogue: Catalogue, enter: Enter, sets_of: Sets) -> None:
    here, there = enter(catalogue, "here", ["normal"]), enter(catalogue, "there", ["normal"])
    assert assign_sets(catalogue, POLICY, {here})["unassigned"] == 1
    assigned = sets_of(catalogue)
    assert assigned[here] is not None and assigned[there] is None


def test_public_data_get_the_same_sets_under_any_key(tmp_path: Path, enter: Enter, sets_of: Sets) -> None:
    def sets(workspace: str, drawn_from: str) -> list[str | None]:
        with Catalogue.open(Settings(workspace=tmp_path / workspace)) as catalogue:
            people = [enter(catalogue, (workspace, n), ["normal"], pixels=f"{n:064x}") for n in range(60)]
            assign_sets(catalogue, SplitPolicy(drawn_from=drawn_from))
            assigned = sets_of(catalogue)
        return [assigned[person] for person in people]

    assert sets("a", "pixels") == sets("b", "pixels")
    assert len(set(sets("c", "pixels"))) > 3  # they are spread
    assert sets("d", "pseudonym") != sets("e", "pseudonym")  # what the option is for
