"""The task `personalise`: which images are learned, how the prior is mixed in, and what the ranks of a subject say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import PersonaliseTask, load_task
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import train_for
from pipeline.stages.generate.words.personalise import SubjectAndPrior, find_subject, measure_rank
from pipeline.stages.generate.words.word_court import Captioned, WordCourt, require_words
from tests.stages.conftest import Hospital
from tests.stages.generate.words.test_words import TASK

OWN = """
task: personalise
name: tiny-scanner
images: 3
prior: 4
tuning: 16
each: 8
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PersonaliseTask:
    path = tmp_path_factory.mktemp("personalise") / "task.yaml"
    lines = [line for line in TASK.splitlines() if not line.startswith(("task", "name", "each", "guidance", "prompts"))]
    path.write_text(OWN + "\n".join(lines))
    task = load_task(path)
    assert isinstance(task, PersonaliseTask)
    return task


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: PersonaliseTask) -> TaskReport:
    return run_task(task, hospital.settings)


@pytest.fixture(scope="module")
def held_out(hospital: Hospital, task: PersonaliseTask, report: TaskReport) -> Captioned:
    return WordCourt.open(task, train_for(task, hospital.settings, require_words), hospital.settings).held_out


@pytest.mark.slow
def test_before_with_and_without_the_prior_are_measured(report: TaskReport) -> None:
    assert len(report.rows) == 3
    assert {f"{what}_{when}" for what in ("rank", "near", "kid") for when in ("before", "with_prior")} <= set(
        report.metrics
    )
    assert report.metrics["kid_with_prior"] != report.metrics["kid_without_prior"]
    assert report.folder.sheet.stat().st_size > 5_000


@pytest.mark.slow
def test_the_subject_is_one_scanner_and_its_learned_images_do_not_judge(
    task: PersonaliseTask, held_out: Captioned
) -> None:
    subject = find_subject(task, held_out)
    refs = held_out.slices.refs
    scanners = {refs[place].attributes["scanner"] for place in (*subject.learned, *subject.others)}
    assert scanners == {subject.name} and len(subject.learned) == 3
    assert not set(subject.learned) & set(subject.others)
    near, _ = measure_rank(held_out.slices.images[list(subject.others)], held_out, subject)
    assert near.value == 1.0, "real images of the subject are nearest to themselves"


@pytest.mark.slow
def test_a_patient_is_a_subject_too(task: PersonaliseTask, held_out: Captioned) -> None:
    subject = find_subject(task.model_copy(update={"subject": "patient", "images": 2}), held_out)
    refs = held_out.slices.refs
    assert subject.name == "patient", "no pseudonym on a picture"
    assert len({refs[place].patient_id for place in (*subject.learned, *subject.others)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"which": "Aster 16"}, {"subject": "patient", "images": 20}])
def test_subjects_without_enough_images_are_refused(
    task: PersonaliseTask, held_out: Captioned, change: dict[str, object]
) -> None:
    with pytest.raises(EmptySelection, match="held-out normal images"):
        find_subject(task.model_copy(update=change), held_out)


def test_every_second_lesson_is_the_priors() -> None:
    subject, prior = torch.ones(3, 1, 4, 4), torch.zeros(5, 1, 4, 4)
    both = SubjectAndPrior((subject, ["own"] * 3), (prior, ["class"] * 5))
    assert len(both) == 10
    assert [both[index]["about"]["caption"] for index in range(4)] == ["own", "class"] * 2
    assert [float(both[index]["image"].mean()) for index in range(4)] == [1.0, 0.0] * 2
    alone = SubjectAndPrior((subject, ["own"] * 3), (torch.zeros(0), []))
    assert {alone[index]["about"]["caption"] for index in range(len(alone))} == {"own"}


def test_another_word_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("task: personalise\nname: x\ntrained: {run: y}\nword: brain\n")
    with pytest.raises(ConfigError, match="word"):
        load_task(path)
