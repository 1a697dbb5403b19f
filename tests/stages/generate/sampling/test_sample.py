"""The task `sample`: its images do not depend on how they are drawn, survive an interruption, and are kept apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from pydicom import dcmread

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.errors import ArtefactError, ConfigError, EmptySelection
from pipeline.methods import Model, build_method, load_model, parse_method
from pipeline.stages.generate import trained_model
from pipeline.stages.generate.draw import check_words, draw_samples
from pipeline.stages.generate.gallery import write_gallery
from pipeline.stages.generate.judge import Court
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.sampling import sample as sample_stage
from pipeline.stages.generate.sampling.comparison_config import load_comparison
from pipeline.stages.generate.sampling.run_sample import finish_sample
from pipeline.stages.generate.sampling.sample import OpenTask, draw_all, open_task
from pipeline.stages.generate.sampling.write_out import write_images
from pipeline.stages.generate.task_config import TASKS, SampleTask, load_task, load_task_as
from pipeline.stages.generate.task_list import list_all_tasks
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import connect
from tests.stages.conftest import Hospital


@pytest.fixture(scope="module")
def opened(hospital: Hospital, task_file: Path) -> OpenTask:
    return open_task(load_task(task_file), hospital.settings)


@pytest.fixture(scope="module")
def report(opened: OpenTask) -> Any:
    return finish_sample(opened, draw_all(opened))


def test_images_depend_neither_on_the_batch_nor_on_their_number(opened: OpenTask) -> None:
    images = draw_samples(opened.model, 7, seed=3, batch=7)
    assert images.shape == (7, 1, 32, 32)
    torch.testing.assert_close(draw_samples(opened.model, 5, seed=3, batch=2), images[:5])
    assert (draw_samples(opened.model, 5, seed=4) - images[:5]).abs().max() > 1e-3
    assert (images[0] - images[1]).abs().max() > 1e-3


def test_an_interrupted_task_draws_only_what_is_missing(
    opened: OpenTask, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draw_all(opened)[0]
    (part,) = opened.folder.path.glob("samples/vae-*/part-00001.safetensors")
    part.write_bytes(part.read_bytes()[:100])
    drawn = []
    original = sample_stage.draw_part
    monkeypatch.setattr(
        sample_stage, "draw_part", lambda m, rows, *rest: drawn.append(rows) or original(m, rows, *rest)
    )
    after = draw_all(opened)[0]
    assert drawn == [range(10, 20)]
    assert torch.equal(after.images, before.images)


def test_the_judgement_stands_beside_a_baseline_and_real_images(opened: OpenTask, report: Any) -> None:
    names = [line.split("|")[1].strip() for line in report.table.splitlines()[2:]]
    assert names == ["real against real", "vae, as configured", "pca, baseline"]
    assert [row["samples"] for row in report.rows] == [24, 24]
    assert report.folder.sheet.read_bytes().startswith(b"\x89PNG")
    rows = [row for row in list_all_tasks(opened.settings) if row["where"] == report.task_id]
    assert [(row["measure"], row["value"]) for row in rows] == [("kid", report.rows[0]["kid"]["value"])]


def test_mlflow_has_the_task_and_says_that_it_is_synthetic(opened: OpenTask, report: Any) -> None:
    connect(opened.settings)
    run = mlflow.get_run(opened.folder.read("mlflow.json")["run_id"])
    facts = opened.folder.read("task.json")
    assert run.data.tags["synthetic"] == "yes"
    assert run.data.tags["model_sha256"] == facts["model_sha256"]
    assert run.data.metrics["kid"] == pytest.approx(report.rows[0]["kid"]["value"])
    with Catalogue.open(opened.settings) as catalogue:
        assert catalogue.run(opened.folder.task_id).kind == "generate"


def test_a_finished_task_goes_to_the_same_run(
    opened: OpenTask, report: Any, hospital: Hospital, task: SampleTask
) -> None:
    before = opened.folder.read("mlflow.json")
    again = run_task(task, hospital.settings)
    kids = [[row["kid"] for row in each.rows] for each in (again, report)]
    assert (again.task_id, kids[0]) == (report.task_id, kids[1])
    assert opened.folder.read("mlflow.json") == before


def test_synthetic_files_say_so_and_cannot_come_back(
    opened: OpenTask, report: Any, tmp_path: Path, settings: Settings
) -> None:
    assert write_images(opened.folder, report.drawings[0], tmp_path / "out") == 24
    assert write_images(opened.folder, report.drawings[0], tmp_path / "out") == 24
    fewer = replace(report.drawings[0], images=report.drawings[0].images[:9])
    with pytest.raises(ConfigError, match="15 synthetic images"):
        write_images(opened.folder, fewer, tmp_path / "out")
    ds = dcmread(tmp_path / "out" / "synthetic-00003.dcm")
    assert (ds.SyntheticData, list(ds.ImageType), ds.PatientID) == ("YES", ["DERIVED", "SECONDARY"], "")
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "Nightread"
    assert int(ds.pixel_array.max()) > int(ds.pixel_array.min())
    taken = ingest(sorted((tmp_path / "out").glob("*.dcm")), settings)
    assert (taken.added, taken.rejected) == (0, {"synthetic-image": 24})


def test_a_sweep_draws_every_value_once(hospital: Hospital, task: SampleTask) -> None:
    for own in (1, 2, 3, 4):  # the task's own options come first, wherever the sweep has them, and never twice
        swept = task.model_copy(update={"options": {"a": own}, "sweep": {"a": (1, 2, 3, 2)}}).swept
        assert [one["a"] for one in swept] == [own, *(value for value in (1, 2, 3) if value != own)]


def test_images_with_one_condition_are_judged_by_real_ones_that_have_it(hospital: Hospital, task_file: Path) -> None:
    method = {"name": "conditional_vae", "widths": [8, 16], "latent": 4, "conditions": {"use": ["sex", "age_band"]}}
    judge = {"classes": ["sex", "age_band"], "baseline": None}
    changes = [f"run.method={json.dumps(method)}", f"judge={json.dumps(judge)}", "count=9"]
    one = open_task(load_task(task_file, [*changes, "about={sex: F}"]), hospital.settings)
    every = open_task(load_task(task_file, changes), hospital.settings)
    court, whole = (Court.open(task, task.config.judge) for task in (one, every))  # type: ignore[arg-type]
    assert {about["sex"] for about in court.held_out.about} == {"F"}
    assert 0 < len(court.held_out.refs) < len(whole.held_out.refs)
    assert len(court.learned.refs) == len(whole.learned.refs)  # copies are looked for among all of them
    assert (set(court.judge.real.classes or ()), court.attributes) == ({"F"}, ("sex",))
    (judged,) = court.judge_all(draw_all(one))
    assert judged.quality.classes is not None and judged.quality.classes.agreement is not None


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ("{sex: X}", "sex 'X'"),
        ("{view: AP}", "ignore view"),
        ("{relative_position: abc}", "'abc'"),
        ("{relative_position: 5}", "5"),
    ],
)
def test_a_condition_without_meaning_is_refused_before_it_trains(
    hospital: Hospital, task_file: Path, about: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_model, "train", lambda *args, **more: pytest.fail("it trained"))
    words = ["sex", "relative_position"]
    method = {"name": "conditional_vae", "widths": [8, 16], "latent": 4, "conditions": {"use": words}}
    with pytest.raises(ConfigError, match=why):
        changes = [f"run.method={json.dumps(method)}", "run.name=never", f"about={about}"]
        open_task(load_task(task_file, changes), hospital.settings)


@pytest.mark.parametrize("kind", ["sample", "walk", "denoise"])
def test_missing_real_images_are_named_before_it_trains(
    hospital: Hospital, task_file: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_model, "train", lambda *args, **more: pytest.fail("it trained"))
    sets = {"sample": "judge.against=[gate]", "walk": "between=[gate]", "denoise": "of=[gate]"}
    task = load_task_as(TASKS[kind], task_file, ["run.name=never", sets[kind]])
    with pytest.raises(EmptySelection, match="gate"):
        run_task(task, hospital.settings)  # type: ignore[arg-type]


def test_the_command_of_another_kind_of_file_is_named(task_file: Path) -> None:
    shipped = task_file.parents[0] / "other.yaml"
    for named, kind in {"walk": "sample", "compare": "sample", "denoise": "walk"}.items():
        shipped.write_text(f"task: {named}\nname: x\n")
        with pytest.raises(ConfigError, match=f"nightread generate {named} "):
            load_task_as(TASKS[kind], shipped)
    with pytest.raises(ConfigError, match="generate sample"):
        load_comparison(task_file)
    with pytest.raises(ConfigError, match="configuration of a run"):
        load_task_as(SampleTask, task_file.with_name("run.yaml"))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"options": {"steps": 5}}, ("vae", "steps")),
        ({"about": {"body_part": "BRAIN"}}, ("vae", "about")),
        ({"run": {"method": {"name": "ae", "widths": [8, 16], "hidden": 64}}}, ("ae", "ddpm")),
    ],
)
def test_what_a_method_cannot_do_is_said_before_it_trains(
    hospital: Hospital, task_file: Path, change: dict[str, Any], names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_model, "train", lambda *args, **more: pytest.fail("it trained"))
    overrides = [f"{key}={json.dumps(value)}" for key, value in change.items() if key != "run"]
    if "run" in change:
        overrides.append(f"run.method={json.dumps(change['run']['method'])}")
    with pytest.raises(ConfigError) as error:
        open_task(load_task(task_file, overrides), hospital.settings)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize(
    "override",
    [
        "count=0",
        "count=10000000",
        "judge.against=[train]",
        "judge.against=[test]",
        "trained={run: x}",
        "run=null",
        "seed=-1",
        "count=7",
        "sweep={steps: []}",
        "about={}",
    ],
)
def test_absurd_tasks_are_refused(task_file: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0].split(".")[0] if override[0] != "t" else "one model"):
        load_task(task_file, [override])


def test_an_unknown_word_names_those_that_were_learned() -> None:
    with pytest.raises(ConfigError, match="HAND.*CHEST, HEAD"):
        check_words({"body_part": "HAND"}, [{"body_part": "HEAD"}, {"body_part": "CHEST"}, {}])
    check_words({"body_part": "HEAD", "relative_position": 0.5}, [{"body_part": "HEAD"}])


def test_zero_images_are_not_drawn() -> None:
    method = build_method(parse_method({"name": "vae", "widths": [8, 16], "latent": 4}), 32)
    with pytest.raises(ConfigError, match="0 images"):
        draw_samples(Model(method, None), 0)  # type: ignore[arg-type]


def test_sets_without_normals_are_named(hospital: Hospital, task: SampleTask) -> None:
    judge = task.judge and task.judge.model_copy(update={"against": ("gate",)})
    with pytest.raises(EmptySelection, match="gate"):
        run_task(task.model_copy(update={"judge": judge}), hospital.settings)


def test_a_trained_run_is_used_as_it_is(opened: OpenTask, report: Any, hospital: Hospital, task: SampleTask) -> None:
    run_id = opened.folder.read("task.json")["run"]
    values = task.model_dump(mode="json") | {"run": None, "trained": {"run": run_id[:-2]}, "judge": None}
    assert torch.equal(
        draw_all(open_task(SampleTask.model_validate(values), hospital.settings))[0].images, draw_all(opened)[0].images
    )
    values["trained"]["sha256"] = "0" * 64
    with pytest.raises(ArtefactError):
        open_task(SampleTask.model_validate(values), hospital.settings)
    model = load_model(RunFolder.find(hospital.settings, run_id).model)
    assert model.method.config.name == "vae"


def test_sections_may_name_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "method.yaml").write_text("name: vae\nlatent: 5\n")
    (tmp_path / "deep" / "run.yaml").write_text(
        "name: one\nmethod: method.yaml\ndata: {route: phantom-mr, normaliser: {kind: mr_percentile}}\n"
    )
    (tmp_path / "task.yaml").write_text("name: two\nrun: deep/run.yaml\n")
    loaded = load_config(tmp_path / "task.yaml", SampleTask, ["run.training.images=7"])
    assert loaded.run is not None
    assert (loaded.run.method.name, loaded.run.training.images) == ("vae", 7)
    (tmp_path / "task.yaml").write_text("name: two\nrun: task.yaml\n")
    with pytest.raises(ConfigError, match="names itself"):
        load_task(tmp_path / "task.yaml")


def test_the_gallery_shows_every_finished_task(
    opened: OpenTask, report: Any, settings: Settings, tmp_path: Path
) -> None:
    page = write_gallery(opened.settings, tmp_path / "gallery").read_text()
    picture = f"{opened.folder.task_id}-sheet.png"
    assert (f'src="{picture}"' in page, (tmp_path / "gallery" / picture).is_file()) == (True, True)
    assert "<td>real against real</td>" in page
    with pytest.raises(EmptySelection):
        write_gallery(settings, tmp_path / "nothing")
