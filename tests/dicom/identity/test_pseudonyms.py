"""Pseudonyms: the documented function of a secret key, unambiguous, and independent of padding."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from pipeline.config import Settings
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.burned_in import check_burned_in, figures_allowed
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import IdentityError, Rejected, RejectionCode

KEY = bytes(range(32))
_TEXT = st.text(max_size=20)


def test_golden_value_of_a_patient() -> None:
    # Derived by hand: each part is preceded by its length as 8 bytes, big-endian.
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (b"patient", b"HOSPITAL", b"MRN 7"))
    expected = hmac.new(KEY, message, hashlib.sha256).hexdigest()[:32]
    assert Pseudonyms(KEY).patient("HOSPITAL", "MRN 7") == expected


@pytest.mark.parametrize("padded", ["MRN 7 ", " MRN 7", "MRN 7\0", "\tMRN 7 \r\n", "MRN 7\0\0 "])
def test_padding_does_not_split_a_patient(padded: str) -> None:
    keys = Pseudonyms(KEY)
    assert keys.patient("H", padded) == keys.patient("H ", "MRN 7")


def test_case_inner_blanks_and_leading_zeros_count() -> None:
    keys = Pseudonyms(KEY)
    names = {keys.patient("H", name) for name in ("a7", "A7", "A 7", "A  7", "0A7")}
    assert len(names) == 5


@budget(deadline=None)
@given(st.tuples(_TEXT, _TEXT), st.tuples(_TEXT, _TEXT))
def test_no_two_pairs_share_a_message(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = Pseudonyms(KEY)
    same = keys._digest("patient", *one) == keys._digest("patient", *other)
    assert same == (one == other)


def test_a_shifted_boundary_is_another_patient() -> None:
    keys = Pseudonyms(KEY)
    assert keys.patient("AB", "C") != keys.patient("A", "BC")


@budget(deadline=None)
@given(st.text(min_size=1, max_size=64))
def test_kinds_are_apart_and_names_are_hex(uid: str) -> None:
    keys = Pseudonyms(KEY)
    pseudonyms = [keys.study(uid), keys.series(uid), keys.instance(uid), keys.patient_of_study(uid)]
    assert len(set(pseudonyms)) == 4
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in pseudonyms)


def test_another_key_gives_other_names() -> None:
    assert Pseudonyms(KEY).study("1.2") != Pseudonyms(bytes(32)).study("1.2")
    assert Pseudonyms(KEY).key_id != Pseudonyms(bytes(32)).key_id


def test_the_issuer_is_the_one_in_the_file_or_the_site() -> None:
    keys = Pseudonyms(KEY)
    without = keys.of(RawIdentity(patient_id="7", study_uid="1", series_uid="2", sop_uid="3"), "SITE-A")
    named = keys.of(RawIdentity(issuer="SITE-A", patient_id="7", study_uid="1", series_uid="2", sop_uid="3"), "SITE-B")
    assert without == named and without.identified
    other = keys.of(RawIdentity(patient_id="7", study_uid="1", series_uid="2", sop_uid="3"), "SITE-B")
    assert other.patient_id != without.patient_id and other.study_id == without.study_id


@pytest.mark.parametrize("empty", ["", "  ", "\0", " \0 "])
def test_an_empty_patient_id_is_coded_by_study_and_not_identified(empty: str) -> None:
    keys = Pseudonyms(KEY)
    one = keys.of(RawIdentity(patient_id=empty, study_uid="1.1", series_uid="2", sop_uid="3"), "S")
    two = keys.of(RawIdentity(patient_id=empty, study_uid="1.2", series_uid="2", sop_uid="3"), "S")
    assert not one.identified and one.patient_id != two.patient_id  # two strangers are not one person
    with pytest.raises(IdentityError):
        keys.patient("S", empty)


def test_reprs_show_neither_key_nor_identity(settings: Settings) -> None:
    with Pseudonyms.open(settings) as keys:
        raw = RawIdentity(patient_id="PLANTED^NAME", study_uid="1", series_uid="2", sop_uid="3")
        reprs = repr(keys) + repr(keys.of(raw, "S")) + repr(raw)
    assert "PLANTED" not in reprs and settings.key_file.read_text().split()[1] not in reprs


def _attributes(modality: str, burned_in: bool | None, **more: object) -> InstanceAttributes:
    return InstanceAttributes(modality=modality, burned_in=burned_in, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["reject", "no-figures", "accept"])
def test_declared_text_is_refused_only_by_policy(policy: str) -> None:
    flagged = _attributes("US", True)
    if policy == "reject":
        with pytest.raises(Rejected) as caught:
            check_burned_in(flagged, policy)
        assert caught.value.code is RejectionCode.BURNED_IN_TEXT
    else:
        check_burned_in(flagged, policy)  # type: ignore[arg-type]
    check_burned_in(_attributes("US", False), policy)  # type: ignore[arg-type]
    check_burned_in(_attributes("US", None), policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        (_attributes("CT", True), False),
        (_attributes("US", False), True),
        (_attributes("CT", None, image_type=("ORIGINAL", "PRIMARY", "AXIAL")), True),
        (_attributes("CT", None, image_type=("DERIVED", "SECONDARY")), False),
        (_attributes("MR", None, conversion_type="WSD"), False),
        (_attributes("US", None), False),
        (_attributes("", None), False),
    ],
)
def test_figures_leave_only_where_no_text_can_be_in_them(attributes: InstanceAttributes, allowed: bool) -> None:
    assert figures_allowed(attributes, "no-figures") is allowed
    assert figures_allowed(attributes, "reject") is allowed
    assert figures_allowed(attributes, "accept") is True
