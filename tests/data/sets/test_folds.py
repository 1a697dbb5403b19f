"""Cross-fitting: each patient is held out once, test and gate do not change, and folds are independent of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
from pydantic import ValidationError
from scipy.stats import binom

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Patient
from pipeline.data.sets.folds import FOLDED, Fold, read_sets_under
from pipeline.data.sets.selection import slices
from pipeline.data.sets.splits import SplitPolicy, assign_sets
from pipeline.types import LABELLED_SETS, NORMAL_SETS

POLICY = SplitPolicy(
    mixed_patients=True,
    mixed={"train": 0.3, "validate": 0.1, "calibrate": 0.2, "develop": 0.2, "gate": 0.1, "test": 0.1},
)
Enter = Callable[..., str]


@pytest.fixture
def everyone(catalogue: Catalogue, enter: Enter) -> Catalogue:
    """Eighty patients, each with two normal images and an abnormal one, in all six sets."""
    for name in range(80):
        enter(catalogue, name, ["normal", "abnormal", "normal"], pixels=f"{name:03d}")
    assign_sets(catalogue, POLICY)
    return catalogue


def under(catalogue: Catalogue, fold: Fold, by_pixels: bool = False) -> dict[str, str]:
    with catalogue.reading() as session:
        return dict(read_sets_under(session, fold, by_pixels))


@pytest.mark.parametrize("by_pixels", [False, True])
def test_every_patient_is_held_out_once(
    everyone: Catalogue, sets_of: Callable[[Catalogue], dict[str, str]], by_pixels: bool
) -> None:
    stored = sets_of(everyone)
    folds = [under(everyone, Fold(of=4, held_out=k), by_pixels) for k in range(4)]
    for patient, was in stored.items():
        now = [fold.get(patient, was) for fold in folds]
        if was not in FOLDED:
            assert now == [was] * 4
            continue
        expected = "train" if was == "develop" else was
        assert Counter(now) == Counter(["develop"] + [expected] * 3)
    assert sets_of(everyone) == stored  # nothing is written


def test_slices_follow_the_law_of_the_fold_and_no_patient_leaks(everyone: Catalogue) -> None:
    for held_out in range(3):
        sets_under_fold = under(everyone, Fold(of=3, held_out=held_out))
        chosen = {
            name: slices(everyone, sets=(name,), sets_of=sets_under_fold) for name in (*NORMAL_SETS, *LABELLED_SETS)
        }
        for name in NORMAL_SETS:
            assert chosen[name] and {ref.label for ref in chosen[name]} == {"normal"}
        assert {ref.label for ref in chosen["develop"]} == {"normal", "abnormal"}
        assert all(ref.set_name == name for name, refs in chosen.items() for ref in refs)
        people = {name: {ref.patient_id for ref in refs} for name, refs in chosen.items()}
        assert all(not people[one] & people[other] for one, other in combinations(people, 2))
        assert people["develop"] == {patient for patient, name in sets_under_fold.items() if name == "develop"}
        assert {ref.patient_id for ref in slices(everyone, sets=("test",))} == people["test"]
        members = slices(everyone, sets=("develop", "train"), sets_of=sets_under_fold)
        assert len(members) == len(chosen["develop"]) + len(chosen["train"])


def test_a_fold_depends_on_nobody_else(everyone: Catalogue, enter: Enter) -> None:
    fold = Fold(of=5, held_out=2)
    before = under(everyone, fold)
    for name in range(100, 140):
        enter(everyone, name, ["normal", "abnormal"])
    assign_sets(everyone, POLICY)
    after = under(everyone, fold)
    assert len(after) > len(before) and {patient: after[patient] for patient in before} == before


def test_pixels_give_the_same_folds_under_other_pseudonyms(
    everyone: Catalogue, enter: Enter, sets_of: Callable[[Catalogue], dict[str, str]]
) -> None:
    """The same images under new names: folds derived from pixels are the same for each patient."""
    stored = sets_of(everyone)
    pairs = []
    for name in range(80):
        first = enter(everyone, name)
        twin = enter(everyone, f"twin {name}", ["normal"], pixels=f"{name:03d}", set_name=stored[first])
        pairs.append((first, twin))
    folded = under(everyone, Fold(of=4, held_out=1), by_pixels=True)
    sets = [(folded.get(first), folded.get(twin)) for first, twin in pairs]
    assert all(one == other for one, other in sets) and ("develop", "develop") in sets
    by_name = under(everyone, Fold(of=4, held_out=1))
    assert any(by_name.get(first) != by_name.get(twin) for first, twin in pairs)


def test_folds_are_even_and_independent_of_the_sets() -> None:
    """2000 draws in 4 folds: each holds a quarter; outside these bounds with probability 1e-6."""
    low, high = binom.ppf([5e-7, 1 - 5e-7], 2000, 0.25)
    for held_out in range(4):
        fold = Fold(of=4, held_out=held_out)
        held = sum(
            fold.set_of(f"{start / 10 + n / 20000}", "train") == "develop" for start in (3,) for n in range(2000)
        )
        assert low < held < high  # draws of one stored set, which is one interval, spread over all folds


def test_unidentified_patients_are_never_moved_to_train(everyone: Catalogue, enter: Enter) -> None:
    nameless = enter(everyone, "nameless", ["normal"], identified=False)
    with everyone.session() as session:
        row = session.get(Patient, nameless)
        assert row is not None
        row.set_name = "develop"  # by mistake
    assert all(nameless not in under(everyone, Fold(of=2, held_out=k)) for k in range(2))


def test_a_fold_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"held_out\b.*\b4\b.*\b3\b"):
        Fold(of=4, held_out=4)
    with pytest.raises(ValidationError, match=r"\nof\n.*\b2\b"):
        Fold(of=1, held_out=0)
