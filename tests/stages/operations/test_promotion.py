"""Promotions behind gates: refused and allowed, rolled back, recorded; a broken champion stops no night."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.notices import list_notices
from pipeline.data.catalogue.promotion_records import list_promotions, verify_promotions
from pipeline.errors import ArtefactError, PromotionRefused
from pipeline.stages.operations.gate_report import REPORT
from pipeline.stages.operations.promotion import Promotion, promote_run, rollback
from pipeline.stages.operations.promotion_gates import PromotionGates
from pipeline.stages.operations.promotion_move import Approval, list_outside_moves
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.watch.site_config import SiteConfig
from pipeline.stages.watch.troubles import find_conditions
from pipeline.tracking.registry import find_champion, promote

RUN = """
name: ward
unit: study
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.35, validate: 0.05, calibrate: 0.25, gate: 0.35}
    others: {gate: 1.0}
method: {name: pca, directions: 12}
training: {images: 64, batch_size: 16}
detection:
  residual: {kind: l1, median: 3}
  aggregate: {map: top_fraction, fraction: 0.05}
  flagging: {alpha: 0.2}
"""
GATES = PromotionGates(normal_patients=5, abnormal_patients=5, margin=0.1, slowdown=1e6, shadow_nights=0)
BOSS = Approval("A. Meyer", "a new scanner")
ROUTE = "phantom-mr"


@dataclass(frozen=True, slots=True)
class Ward:
    """A workspace, and the ids of its runs."""

    settings: Settings
    champion: str
    better: str
    worse: str


@pytest.fixture(scope="module")
def first_ward(tmp_path_factory: pytest.TempPathFactory, new_hospital: object) -> Ward:
    """Sixty labelled phantoms with a gate set, and three calibrated runs; the first is the champion."""
    from pipeline.data.ingest.ingest import ingest
    from pipeline.data.labels.labels import import_labels
    from pipeline.dicom.phantom.folder import SYNTAXES, write_labels, write_phantoms
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.train import train
    from pipeline.stages.run.run_config import RunConfig

    folder, settings = tmp_path_factory.mktemp("ward"), new_hospital()  # type: ignore[operator]
    read = write_phantoms(folder / "read", 60, "MR", 0.3, 21, size=32, grades=(3,), syntaxes=SYNTAXES[:1])
    write_phantoms(folder / "tonight", 6, "MR", 0.5, 22, size=32, grades=(3,), syntaxes=SYNTAXES[:1])
    ingest([folder / "read", folder / "tonight"], settings)
    import_labels(write_labels(read.studies, folder), settings)
    (folder / "run.yaml").write_text(RUN)
    runs = []
    for changes in (["method.directions=12"], ["method.directions=10"], ["method.directions=1"]):
        one = load_config(folder / "run.yaml", RunConfig, changes)
        runs.append(calibrate(train(one, settings), settings).run)
    return Ward(settings, *(Path(run.path).name for run in runs))


@pytest.fixture
def ward(first_ward: Ward, tmp_path: Path) -> Ward:
    """A copy of it, as promotions change it."""
    shutil.copytree(first_ward.settings.workspace, tmp_path / "ward")
    return replace(first_ward, settings=Settings(workspace=tmp_path / "ward", workers=1))


def _champion(ward: Ward) -> str:
    run = find_champion(ward.settings, ROUTE)
    assert run is not None
    return Path(run.path).name


@pytest.mark.parametrize(("replaced", "said"), [(None, False), ("2", False), ("1", True)])
def test_only_another_version_is_replaced(replaced: str | None, said: bool) -> None:
    promotion = Promotion("brain", "run-1", "2", replaced)
    assert ("in place of version 1" in promotion.sentence()) == said
    assert promotion.to_json()["replaced"] == replaced


def test_an_unknown_run_is_not_promoted(settings: Settings) -> None:
    with pytest.raises(ArtefactError):
        promote_run(settings, "no-such-run")


def test_without_approval_the_gates_are_measured_and_nothing_moves(ward: Ward) -> None:
    with pytest.raises(PromotionRefused, match="--approve"):
        promote_run(ward.settings, ward.better, gates=GATES)
    assert _champion(ward) == ward.champion
    report = RunFolder(ward.settings.runs / ward.better).read(REPORT)
    assert report["passed"] and report["champion"] == ward.champion
    assert {line["gate"] for line in report["lines"]} == {"size", "AUROC", "subgroups", "calibration", "speed"}


def test_a_promotion_and_a_rollback_move_one_alias_and_are_recorded(ward: Ward) -> None:
    promotion = promote_run(ward.settings, ward.better, BOSS, GATES)
    assert (promotion.action, _champion(ward)) == ("promote", ward.better)
    assert rollback(ward.settings, ROUTE, Approval("B. Roth", "too many flags")).run == ward.champion
    assert _champion(ward) == ward.champion
    with Catalogue.open(ward.settings) as catalogue:
        back, there = list_promotions(catalogue)
        assert verify_promotions(catalogue, Chain.open(ward.settings, catalogue)).problems == ()
    assert (there.who, there.why, there.action) == ("A. Meyer", "a new scanner", "promote")
    assert (there.champion.run, there.before and there.before.run) == (ward.better, ward.champion)
    assert promotion.report is not None and there.report_sha256 == promotion.report.sha256
    assert (back.action, back.champion.run, back.report_sha256) == ("rollback", ward.champion, "")


def test_a_second_rollback_does_not_bring_back_what_the_first_one_removed(ward: Ward) -> None:
    """As when two people react to the same night; a third model shows that the way back ends at the first champion."""
    promote_run(ward.settings, ward.better, BOSS, GATES)
    promote_run(ward.settings, ward.worse, BOSS, GATES, override=True)
    assert [rollback(ward.settings, ROUTE, BOSS).run for _ in range(2)] == [ward.better, ward.champion]
    with pytest.raises(PromotionRefused, match="has no champion before it that was not rolled back"):
        rollback(ward.settings, ROUTE, BOSS)
    assert _champion(ward) == ward.champion


def test_what_was_promoted_again_after_a_rollback_can_be_gone_back_to(ward: Ward) -> None:
    promote_run(ward.settings, ward.better, BOSS, GATES)
    rollback(ward.settings, ROUTE, BOSS)
    promote_run(ward.settings, ward.better, BOSS, GATES)
    promote_run(ward.settings, ward.worse, BOSS, GATES, override=True)
    assert rollback(ward.settings, ROUTE, BOSS).run == ward.better


@pytest.mark.parametrize(("route", "reason"), [(ROUTE, "has no champion before it"), ("phantom-ct", "has no champion")])
def test_without_an_earlier_champion_nothing_is_rolled_back(ward: Ward, route: str, reason: str) -> None:
    with pytest.raises(PromotionRefused, match=reason):
        rollback(ward.settings, route, BOSS)


def test_a_worse_model_is_refused_unless_somebody_answers_for_it(ward: Ward) -> None:
    strict = GATES.model_copy(update={"margin": 0.001})
    with pytest.raises(PromotionRefused, match="AUROC"):
        promote_run(ward.settings, ward.worse, BOSS, strict)
    assert _champion(ward) == ward.champion
    assert promote_run(ward.settings, ward.worse, BOSS, strict, override=True).action == "override"
    assert _champion(ward) == ward.worse


def test_a_small_gate_set_says_how_many_are_needed(ward: Ward) -> None:
    with pytest.raises(PromotionRefused, match="500 and 5 are needed"):
        promote_run(ward.settings, ward.better, BOSS, GATES.model_copy(update={"normal_patients": 500}))


def test_a_run_of_another_route_is_refused(ward: Ward) -> None:
    with pytest.raises(PromotionRefused, match="not of 'phantom-ct'"):
        promote_run(ward.settings, ward.better, BOSS, GATES, route="phantom-ct")


def test_a_challenger_that_learned_from_gate_patients_is_refused(ward: Ward) -> None:
    folder = RunFolder(ward.settings.runs / ward.better)
    data = folder.read("data.json")
    data["train"]["by_set"]["gate"] = {"patients": 2}
    folder.write("data.json", data)
    with pytest.raises(PromotionRefused, match="learned from patients"):
        promote_run(ward.settings, ward.better, BOSS, GATES, override=True)


def test_the_shadow_needs_enough_studies_of_the_last_nights(ward: Ward) -> None:
    from pipeline.stages.detect.score import find_detectors_to_run, score

    shadow = GATES.model_copy(update={"shadow_nights": 2, "shadow_flags": 1.0})
    with pytest.raises(PromotionRefused, match="0 studies of the last 2 nights"):
        promote_run(ward.settings, ward.better, BOSS, shadow)
    (run,) = find_detectors_to_run(ward.settings)
    assert score(run, ward.settings).studies == 6
    promotion = promote_run(ward.settings, ward.better, BOSS, shadow.model_copy(update={"shadow_studies": 6}))
    assert promotion.report is not None
    assert "6 studies" in next(line.sentence for line in promotion.report.lines if line.gate == "shadow")


def test_a_promotion_cannot_be_altered(ward: Ward) -> None:
    promote_run(ward.settings, ward.better, BOSS, GATES)
    with Catalogue.open(ward.settings) as catalogue:
        with pytest.raises(SQLAlchemyError), catalogue.engine.begin() as connection:
            connection.execute(text("UPDATE promotions SET who = 'somebody else'"))
        with catalogue.engine.begin() as connection:
            connection.execute(text("DROP TRIGGER promotions_no_update"))
            connection.execute(text("UPDATE promotions SET who = 'somebody else'"))
        assert verify_promotions(catalogue, Chain.open(ward.settings, catalogue)).problems


def test_an_alias_moved_outside_is_told(ward: Ward) -> None:
    promote_run(ward.settings, ward.better, BOSS, GATES)
    promote(ward.settings, ROUTE, "1")
    with Catalogue.open(ward.settings) as catalogue:
        assert "without a record" in list_outside_moves(ward.settings, catalogue)[0]


def test_a_broken_champion_is_replaced_by_the_last_good_one(ward: Ward) -> None:
    from pipeline.stages.detect.score import find_detectors_to_run, score
    from pipeline.stages.operations.night_report import build_night_report

    promote_run(ward.settings, ward.better, BOSS, GATES)
    model = next((ward.settings.runs / ward.better / "model").glob("*.safetensors"))
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (run,) = find_detectors_to_run(ward.settings)
    assert Path(run.path).name == ward.champion
    report = build_night_report(ward.settings, [], [score(run, ward.settings).to_json()], [])
    (notice,) = report["notices"]
    assert (notice["key"], notice["severity"]) == (f"champion:{ROUTE}", "critical")
    assert ward.champion in notice["sentence"] and notice["sentence"] in report["markdown"]
    find_detectors_to_run(ward.settings)
    with Catalogue.open(ward.settings) as catalogue:
        assert len(list_notices(catalogue)) == 1  # once, however often it is seen
    assert f"champion:{ROUTE}" in [one.key for one in find_conditions(ward.settings, SiteConfig(), ())]
    model.write_bytes(whole)
    assert Path(find_detectors_to_run(ward.settings)[0].path).name == ward.better
    with Catalogue.open(ward.settings) as catalogue:
        assert list_notices(catalogue) == []


@pytest.mark.parametrize(("who", "why"), [("", "x"), ("x", " "), ("x" * 65, "x"), ("x\n", "x")])
def test_an_approval_has_a_name_and_a_reason(who: str, why: str) -> None:
    with pytest.raises(PromotionRefused):
        Approval(who, why)


def test_the_report_is_what_was_hashed(ward: Ward) -> None:
    import hashlib

    promotion = promote_run(ward.settings, ward.better, BOSS, GATES)
    written = (ward.settings.runs / ward.better / REPORT).read_bytes()
    assert promotion.report is not None and hashlib.sha256(written).hexdigest() == promotion.report.sha256
    assert json.loads(written)["data"]["patients"] > 10


@pytest.mark.parametrize(("least", "trained"), [(1, False), (0, True)])
def test_a_challenger_is_trained_from_enough_new_normals(ward: Ward, least: int, trained: bool, tmp_path: Path) -> None:
    from pipeline.stages.operations.retraining import retrain
    from pipeline.stages.run.run_config import RunConfig

    (tmp_path / "run.yaml").write_text(RUN)
    config = load_config(tmp_path / "run.yaml", RunConfig, ["method.directions=11"])
    report = retrain(config, ward.settings, GATES, least)
    assert report.patients == report.before > 5
    assert bool(report.run) is trained and (report.passed is True) is trained
    assert ("nightread promote" if trained else "Fewer than 1 came") in report.sentence()
    assert _champion(ward) == ward.champion
