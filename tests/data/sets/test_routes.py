"""Routes: the series that a detector reads, precedence between routes, and reasons for series that are not scored."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.sets.routes import NotScoredReason, Route, check_unambiguous, load_routes, route_of
from pipeline.data.sets.series_kind import SeriesKind, kind_of
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.vocabulary import TOKENS
from pipeline.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "configs" / "routes"
SC = "1.2.840.10008.5.1.4.1.1.7"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def _series(modality: str, **more: object) -> InstanceAttributes:
    return InstanceAttributes(modality=modality, **more)  # type: ignore[arg-type]


def _answer(attributes: InstanceAttributes, routes: list[Route]) -> str:
    taken = route_of(attributes, routes)
    return taken.code if isinstance(taken, NotScoredReason) else taken.name


ORIGINAL = ("ORIGINAL", "PRIMARY", "AXIAL")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (_series("CT", body_part="HEAD", image_type=ORIGINAL), "ct-head"),
        (_series("CT", body_part="head"), "ct-head"),
        (_series("CT", body_part="HEAD", description=("BONE",)), "no-route"),
        (_series("CT", description=("AX", "HEAD", "STANDARD")), "ct-head"),
        (_series("CT", body_part="ABDOMEN"), "ct-body"),
        (_series("CT", body_part="CHEST"), "ct-chest"),
        (_series("CT", body_part="CHEST", description=("ABDOMEN",)), "ct-chest"),  # the file's own body part wins
        (_series("CT", description=("ABDOMEN", "CHEST")), "ambiguous-route"),
        (_series("CT", body_part="HEAD", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), "localiser"),
        (_series("CT", body_part="HEAD", description=("SCOUT",)), "localiser"),
        (_series("CT", body_part="HEAD", image_type=("DERIVED", "SECONDARY", "MPR")), "derived-image"),
        (_series("CT", body_part="HEAD", image_type=("DERIVED", "PRIMARY")), "derived-image"),
        (_series("CT", body_part="HEAD", description=("PHANTOM",)), "quality-control-phantom"),
        (_series("CT", sop_class_uid=SC, description=("DOSE",)), "dose-report"),
        (_series("SR"), "dose-report"),
        (_series("CT", body_part="LEG"), "no-route"),
        (_series("NM", body_part="HEAD"), "no-route"),
        (_series("MR", body_part="BRAIN", description=("AX", "FLAIR")), "mr-brain-flair"),
        (_series("MR", body_part="BRAIN", description=("AX", "T1")), "mr-brain"),
        (_series("MR", body_part="BRAIN", description=("ADC", "DWI")), "no-route"),
        (_series("MR", description=("FLAIR", "HEAD")), "mr-brain-flair"),
        (_series("CR", sop_class_uid=SC, rows=28), "pneumonia"),
        (_series("CR", sop_class_uid=SC, rows=33), "nih-cr"),
        (_series("CR", sop_class_uid=SC, rows=0), "nih-cr"),  # several sizes in one series
        (_series("CR", body_part="CHEST", view="PA"), "cxr"),
        (_series("DX", body_part="CHEST", view="AP", image_type=("DERIVED", "PRIMARY")), "cxr"),
        (_series("DX", description=("CHEST", "PA")), "cxr"),
        (_series("DX", sop_class_uid=DX, body_part="CHEST", view="PA"), "cxr"),
        (_series("DX", sop_class_uid=f"{DX}.1", body_part="CHEST", view="PA"), "for-processing"),
        (_series("MG", sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2.1", body_part="BREAST"), "for-processing"),
        (_series("DX", body_part="CHEST", view="LL"), "no-route"),
        (_series("DX", body_part="CHEST", description=("LAT", "PA")), "no-route"),
        (_series("DX", body_part="CHEST"), "no-route"),
        (_series("MR", conversion_type="WSD", sop_class_uid=SC), "lgg-flair"),
        (_series("DX", conversion_type="WSD", sop_class_uid=SC), "nih-cr"),
        (_series("OP", conversion_type="WSD", sop_class_uid=SC + ".2"), "wrapped"),
        (_series("CT", manufacturer="Nightread Phantoms", body_part="ABDOMEN"), "phantom-ct"),
        (_series("MR", manufacturer="Nightread Phantoms", description=("PHANTOM", "FLAIR")), "phantom-mr"),
        (_series("DX", manufacturer="NIGHTREAD PHANTOMS"), "phantom-cr"),
        (_series("US", manufacturer="Nightread Phantoms", body_part="BREAST"), "phantom-us"),
        (_series("US", conversion_type="WSD", sop_class_uid=SC), "us-breast"),
        (_series("US", body_part="BREAST"), "us-breast-scanner"),
        (_series("US", body_part="LIVER"), "no-route"),
        (_series("CT", manufacturer="Nightread Phantoms", description=("SCOUT",)), "localiser"),
    ],
)
def test_shipped_routes(attributes: InstanceAttributes, expected: str) -> None:
    assert _answer(attributes, load_routes(SHIPPED)) == expected


def test_a_hospital_without_wrapped_routes_scores_no_secondary_capture() -> None:
    routes = [route for route in load_routes(SHIPPED) if SeriesKind.SECONDARY not in route.kinds]
    taken = route_of(_series("CT", sop_class_uid=SC, body_part="HEAD"), routes)
    assert isinstance(taken, NotScoredReason) and taken.code == "secondary-capture"
    assert taken.sentence.startswith("The series is a secondary capture (modality CT, body part HEAD")


def test_shipped_description_tokens_are_words_that_a_header_can_give() -> None:
    words = {word for route in load_routes(SHIPPED) for word in (*route.description, *route.exclude_description)}
    assert words <= set(TOKENS.values())


def test_the_more_specific_route_wins_unless_precedence_decides() -> None:
    wide = Route(name="wide", modality=("CT",))
    narrow = Route(name="narrow", modality=("CT",), body_part=("HEAD",), kernel=("B*",))
    first = Route(name="first", modality=("CT",), precedence=1)
    head = _series("CT", body_part="HEAD", kernel="B30f")
    assert _answer(head, [wide, narrow]) == _answer(head, [narrow, wide]) == "narrow"
    assert _answer(_series("CT", body_part="HEAD", kernel="H60"), [wide, narrow]) == "wide"
    assert _answer(head, [wide, narrow, first]) == "first"


def test_image_type_kernel_scanner_and_site() -> None:
    route = Route(
        name="r", modality=("M?",), image_type=("NORM",), exclude_image_type=("ADC*",), scanner=("Aera*",), site=("x",)
    )
    fits = _series("MR", image_type=("ORIGINAL", "PRIMARY", "M", "NORM"), scanner="AERA 1.5", site="X")
    assert route.takes(fits)
    for change in ({"image_type": ("ORIGINAL",)}, {"scanner": "Sola"}, {"site": "y"}, {"modality": "CT"}):
        values = {**{"modality": "MR", "image_type": fits.image_type, "scanner": "Aera", "site": "x"}, **change}
        assert not route.takes(InstanceAttributes(**values))
    assert not route.takes(_series("MR", image_type=("NORM", "PRIMARY", "ADC_UNSPECIFIED"), scanner="Aera", site="x"))


def _write(folder: Path, **routes: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in routes.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("routes", "match"),
    [
        ({}, "no route"),
        ({"a": "name: b\nmodality: [CT]"}, r"'b'.*\bb\.yaml"),
        ({"a": "name: a\nmodality: [CT]", "b": "name: b\nmodality: [MR, CT]"}, "'a'.*'b'.*precedence"),
        (
            {
                "a": "name: a\nmodality: [CT]\nkernel: ['B*']",
                "b": "name: b\nmodality: [CT]\nkernel: ['B3*']",
            },
            "'a'.*'b'.*precedence",
        ),
        (
            {
                "a": "name: a\nmodality: [CT]\nbody_part: [HEAD]",
                "b": "name: b\nmodality: [CT]\nkernel: [SOFT]",
            },
            "'a'.*'b'.*precedence",
        ),
        ({"a": "name: a\nmodality: []"}, "modality"),
        ({"a": "name: a\nmodality: [CT]\nkinds: [localiser]"}, "localisers"),
        ({"a": "name: A b\nmodality: [CT]"}, "name"),
        ({"a": "name: a\nmodality: [CT]\nbodypart: [HEAD]"}, "bodypart"),
    ],
)
def test_a_wrong_folder_of_routes_is_refused(tmp_path: Path, routes: dict[str, str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_routes(_write(tmp_path / "routes", **routes))


@pytest.mark.parametrize(
    "other",
    [
        "modality: [MR]",
        "modality: [CT]\nkinds: [derived]",
        "modality: [CT]\nbody_part: [HEAD]",
        "modality: [CT]\nprecedence: 1",
    ],
)
def test_routes_that_cannot_meet_or_have_an_order_are_accepted(tmp_path: Path, other: str) -> None:
    routes = load_routes(_write(tmp_path / "r", a="name: a\nmodality: [CT]", b=f"name: b\n{other}"))
    assert [route.name for route in routes] == ["a", "b"]


def test_a_required_token_that_the_other_excludes_keeps_two_routes_apart(tmp_path: Path) -> None:
    one = "name: one\nmodality: [MR]\ndescription: [FLAIR]"
    two = "name: two\nmodality: [MR]\ndescription: [T1]\nexclude_description: [FLAIR]"
    assert len(load_routes(_write(tmp_path / "r", one=one, two=two))) == 2
    with pytest.raises(ConfigError):
        load_routes(_write(tmp_path / "s", one=one, two=two.replace("\nexclude_description: [FLAIR]", "")))


@pytest.mark.parametrize(
    ("criteria", "refused"),
    [
        ({"body_part": ["head", "KOPF", "T12"], "view": ["PA", "rmlo"]}, ""),
        ({"body_part": ["*SKULL*", "M?CKEL"]}, ""),  # a pattern may match what is recorded
        ({"body_part": ["HEAD", "MUELLER"]}, "MUELLER never matches"),
        ({"view": ["SUNSHINE"]}, "SUNSHINE never matches"),
    ],
)
def test_a_word_that_the_catalogue_never_holds_is_refused(criteria: dict[str, list[str]], refused: str) -> None:
    values = {"name": "route", "modality": ["CR"], **criteria}
    if not refused:
        assert Route.model_validate(values)
        return
    with pytest.raises(ValidationError, match=refused):
        Route.model_validate(values)


def test_routes_are_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        Route(name="a", modality=("CT",), flavour="x")  # type: ignore[call-arg]


@cache
def _shipped() -> tuple[Route, ...]:
    return tuple(load_routes(SHIPPED))


_WORDS = st.lists(st.sampled_from(sorted(set(TOKENS.values()))), max_size=4).map(tuple)
_TYPES = st.lists(st.sampled_from(["ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "LOCALIZER", "MPR"]), max_size=3)


@budget(deadline=None)
@given(
    st.sampled_from(["CT", "MR", "CR", "DX", "US", ""]),
    st.sampled_from(["", "HEAD", "CHEST", "ABDOMEN", "PELVIS", "odd part"]),
    _WORDS,
    _TYPES.map(tuple),
    st.sampled_from(["", "WSD"]),
)
def test_every_series_gets_a_route_or_a_reason(
    modality: str, body_part: str, words: tuple[str, ...], types: tuple[str, ...], conversion: str
) -> None:
    attributes = _series(modality, body_part=body_part, description=words, image_type=types, conversion_type=conversion)
    routes = list(_shipped())
    taken = route_of(attributes, routes)
    if isinstance(taken, NotScoredReason):
        assert taken.code and taken.sentence.endswith(".")
    else:
        assert kind_of(attributes) in taken.kinds
        assert kind_of(attributes) not in (SeriesKind.LOCALISER, SeriesKind.DOSE)
    assert route_of(attributes, routes[::-1]) == taken or isinstance(taken, NotScoredReason)


def test_a_route_may_ask_for_a_size() -> None:
    route = Route(name="large", modality=["CR"], min_rows=100, max_rows=200)
    assert [route.fits(_series("CR", rows=rows)) for rows in (0, 99, 100, 200, 201)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_routes_of_other_sizes_do_not_meet() -> None:
    small, large = (
        Route(name=n, modality=["CR"], **size) for n, size in (("s", {"max_rows": 9}), ("l", {"min_rows": 10}))
    )
    check_unambiguous([small, large])
    with pytest.raises(ConfigError, match=r"'s'.*'l'"):
        check_unambiguous([small, Route(name="l", modality=["CR"], min_rows=9)])


def test_the_kind_of_a_series_is_determined_once_for_all_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night asks it for every series of the catalogue: once per route made late nights slower than early ones."""
    asked = []
    monkeypatch.setattr("pipeline.data.sets.routes.kind_of", lambda one: asked.append(one) or SeriesKind.PRIMARY)
    several = [Route(name=f"ct-{rows}", modality=("CT",), min_rows=rows, precedence=rows) for rows in (1, 2, 3)]
    assert _answer(_series("CT", rows=2), several) == "ct-2" and len(asked) == 1
