"""The task `text-to-image`: lesions are learned by their words, and what was left out is drawn and judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ArtefactError, ConfigError, PromotionRefused
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import TextToImageTask, load_task
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.generate.words.word_court import WordCourt, require_words
from pipeline.stages.operations.promotion import promote_run
from pipeline.stages.run.captioned_slices import CaptionsConfig, captions_of
from pipeline.stages.run.learning_sets import learning_sets
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_folder import RunFolder
from tests.stages.conftest import Hospital

TASK = """
task: text-to-image
name: tiny-words
run:
  name: tiny-words
  data:
    route: phantom-mr
    normaliser: {kind: mr_percentile, image_size: 32}
    splits:
      normals: {train: 0.3, validate: 0.25, calibrate: 0.2, develop: 0.15, test: 0.1}
      others: {develop: 0.6, test: 0.4}
  method:
    name: text_to_image
    text: {kind: words, width: 8}
    denoiser: {widths: [8, 16], attention: [false, true]}
  captions: {labelled_in: [develop], hold_out: ["lower third, lesion"]}
  training: {images: 64, batch_size: 16, validate_every_images: 64}
against: [validate]
count: 12
each: 2
steps: 2
guidance: [1, 3]
prompts: ["MR head, upper third, lesion central, large"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "task.yaml"
    path.write_text(TASK)
    return path


@pytest.fixture(scope="module")
def task(file: Path) -> TextToImageTask:
    task = load_task(file)
    assert isinstance(task, TextToImageTask)
    return task


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: TextToImageTask) -> TaskReport:
    return run_task(task, hospital.settings)


@pytest.fixture(scope="module")
def trained(hospital: Hospital, task: TextToImageTask, report: TaskReport) -> TrainedModel:
    return train_for(task, hospital.settings, require_words)


def test_every_guidance_and_the_baseline_are_judged(report: TaskReport) -> None:
    names = [row["name"] for row in report.rows]
    assert names[2:] == ["text, guidance 1", "text, guidance 3", "class without text, guidance 3"]
    assert names[0].startswith("real") and names[1].startswith("most frequent")
    assert {"agreement_third", "agreement_finding", "agreement_all", "unseen_all", "kid"} <= set(report.metrics)
    assert {"agreement_third", "agreement_finding"} <= set(report.rows[0]), "the classifier's own accuracy"
    assert report.folder.sheet.stat().st_size > 10_000


def test_lesions_are_learned_but_not_those_left_out(
    hospital: Hospital, task: TextToImageTask, trained: TrainedModel
) -> None:
    run, settings = trained.run, hospital.settings
    assert run.captions is not None
    with Catalogue.open(settings) as catalogue:
        learned = learning_sets(run, settings, catalogue)["train"]
        develop = choose(catalogue, run, settings, sets=("develop",))
        train = choose(catalogue, run, settings, sets=("train",))
    every = captions_of(develop, run.method, settings)  # type: ignore[arg-type]
    out = {name for name, caption in every.items() if caption.third == "lower third" and caption.finding == "lesion"}
    assert (
        out
        and {one.slice_id for one in learned.slices} == {one.slice_id for one in (*train.slices, *develop.slices)} - out
    )
    lesions = [caption for caption in every.values() if caption.finding == "lesion"]
    assert all(caption.side and caption.size for caption in lesions), "every phantom's lesion has a mask"
    assert {ref.label for ref in train.slices} == {"normal"}


def test_what_was_left_out_is_drawn(hospital: Hospital, task: TextToImageTask, trained: TrainedModel) -> None:
    court = WordCourt.open(task, trained, hospital.settings)
    seen, unseen = court.combinations()
    assert len(seen) == 3 + 2 * 2 and len(unseen) == 2
    assert {one.write_finding() for one in unseen} == {"lesion left, medium", "lesion right, medium"}
    assert not any(court.config.holds_out(one) for one in (*seen, *court.mixture(50, 0), *court.learned.captions))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("against=[develop]", "learns from develop"),
        ("against=[test]", "test"),
        ("run.captions=null", "captions"),
        ("run.method={name: vae}", "captions"),
        ('run.captions.hold_out=["upper third, lesion below"]', "below"),
        ('prompts=["MR spleen"]', "spleen"),
        ("negative=nothing", "nothing"),
        ("guidance=[-1]", "guidance"),
        ("run.captions.labelled_in=[calibrate]", "labelled_in"),
    ],
)
def test_what_cannot_be_asked_is_refused(file: Path, override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_task(file, [override])


@pytest.mark.parametrize(("sets", "refused"), [(["gate"], True), (["gate", "develop"], True), (["develop"], False)])
def test_a_run_that_learned_from_gate_is_not_promoted(
    hospital: Hospital, trained: TrainedModel, sets: list[str], refused: bool
) -> None:
    captions = CaptionsConfig(labelled_in=sets)  # type: ignore[arg-type]
    values = trained.run.model_copy(update={"captions": captions}).model_dump(mode="json")
    folder = RunFolder(hospital.settings.runs / f"learned-from-{'-'.join(sets)}")
    folder.write("config.json", values)
    with pytest.raises(PromotionRefused if refused else ArtefactError, match="promotions" if refused else "."):
        promote_run(hospital.settings, folder.run_id)


def test_a_run_without_words_is_refused(hospital: Hospital, task: TextToImageTask, trained: TrainedModel) -> None:
    plain = replace(trained, run=trained.run.model_copy(update={"captions": None}))
    with pytest.raises(ConfigError, match="has no captions"):
        WordCourt.open(task, plain, hospital.settings)
    with pytest.raises(ConfigError, match="held-out sets"):
        WordCourt.open(task.model_copy(update={"against": ("develop",)}), trained, hospital.settings)
