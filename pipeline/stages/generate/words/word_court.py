"""Real images with their captions, and the judge of what is drawn from words: a classifier, and KID with its floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.captions import GRAMMAR, HEAD, LESION, NO_FINDING, Caption, parse_words
from pipeline.data.sets.selection import Selection
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.image_quality import ImageJudge
from pipeline.evaluation.real_images import RealImages
from pipeline.evaluation.word_agreement import WordClassifier
from pipeline.methods.base import Method
from pipeline.methods.text_to_image import TextToImage, TextToImageConfig
from pipeline.nn.rng import row_key
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import Slices, read_real
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.generate.words.word_tasks import WordTask
from pipeline.stages.run.captioned_slices import CaptionsConfig, captions_of
from pipeline.stages.run.learning_sets import learning_sets
from pipeline.stages.run.load_slices import choose


@dataclass(frozen=True, slots=True)
class Captioned:
    """Real slices in memory, with the caption of each."""

    slices: Slices
    captions: tuple[Caption, ...]

    def without_words(self) -> RealImages:
        """Return the images as those of KID."""
        return RealImages(self.slices.images, self.slices.patients)


@dataclass(frozen=True, slots=True)
class WordCourt:
    """The judge of a task of words.

    Attributes:
        held_out: labelled slices that the model did not learn.
        learned: those that it learned.
        classifier: of words, trained on the learned slices.
        judge: of KID, against the held-out ones.
        config: what the model learned, and what was left out.
    """

    held_out: Captioned
    learned: Captioned
    classifier: WordClassifier
    judge: ImageJudge
    config: CaptionsConfig

    @classmethod
    def open(cls, task: WordTask, trained: TrainedModel, settings: Settings) -> WordCourt:
        """Read the real images, and train the classifier on those that the model learned.

        Raises:
            ConfigError: the run has no captions, or learned from the sets that the task judges against.
            EmptySelection: the held-out sets lack labelled slices.
        """
        captions = require_captions(trained, task)
        with Catalogue.open(settings) as catalogue:
            learned = learning_sets(trained.run, settings, catalogue)["train"]
            held_out = choose(catalogue, trained.run, settings, sets=task.against, labels=("normal", "abnormal"))
        if not held_out.slices:
            raise EmptySelection(
                f"The sets {', '.join(task.against)} have no labelled slices of the route {trained.run.data.route}, so "
                f"there is nothing to compare with. Label more, or change `against`.{held_out.left_out()}"
            )
        real, own = (_read(one, trained, settings) for one in (held_out, learned))
        judge = ImageJudge(real.without_words(), own.without_words())
        return cls(real, own, WordClassifier(own.slices.images, own.captions), judge, captions)

    @property
    def accuracy(self) -> dict[str, Estimate]:
        """Accuracy of the classifier on held-out real images, about the most that drawn ones can reach."""
        return self.classifier.agreement(self.held_out.slices.images, self.held_out.captions)

    def mixture(self, count: int, seed: int) -> list[Caption]:
        """Return captions of held-out images that were not left out of the training, as frequent as there."""
        own = [one for one in self.held_out.captions if not self.config.holds_out(one)]
        order = sorted(range(len(own)), key=lambda place: row_key(seed, "caption", place))
        return [own[order[number % len(order)]] for number in range(count)]

    def combinations(self) -> tuple[list[Caption], list[Caption]]:
        """Return the captions of all thirds with no finding and a medium lesion on either side: seen, and left out."""
        head = {name: word for name in HEAD if (word := getattr(self.learned.captions[0], name))}
        thirds = sorted({one.third for one in self.learned.captions if one.third}, key=GRAMMAR["third"].index) or [""]
        findings = [{"finding": NO_FINDING}]
        findings += [{"finding": LESION, "side": side, "size": "medium"} for side in ("left", "right")]
        every = [Caption(**head, third=third, **finding) for third, finding in product(thirds, findings)]
        left_out = [one for one in every if self.config.holds_out(one)]
        extra = [parse_words(text) for text in self.config.hold_out]
        left_out += [one for words in extra if (one := Caption(**{**head, **words})) and not _covered(one, left_out)]
        return [one for one in every if not self.config.holds_out(one)], left_out


def open_words(config: WordTask, settings: Settings, progress: bool) -> tuple[TrainedModel, TaskFolder]:
    """Return the model of a task of words, trained if it is not trained yet, and the folder of what it makes.

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method does not read prompts, or the run learned from what the task judges against.
    """
    trained = train_for(config, settings, require_words, progress)
    require_captions(trained, config)
    return trained, trained.make_folder(config, settings)


def require_captions(trained: TrainedModel, task: WordTask) -> CaptionsConfig:
    """Return what a run learned from captions.

    Raises:
        ConfigError: it has none, or learned from the sets that the task judges against.
    """
    captions = trained.run.captions
    if captions is None or set(captions.labelled_in) & set(task.against):
        raise ConfigError(
            f"The run {trained.run_id} {'has no captions' if captions is None else 'learned from the held-out sets'}, "
            "so its images cannot be judged by words. Name a run with `captions`, and other sets in `against`."
        )
    return captions


def require_words(method: Method) -> None:
    """Refuse a method that does not read prompts (ConfigError)."""
    if not isinstance(method, TextToImage):
        raise ConfigError(f"{method.config.name} does not read prompts. Choose the method text_to_image.")


def _covered(one: Caption, others: Sequence[Caption]) -> bool:
    return any(other.includes(one) for other in others)


def _read(chosen: Selection, trained: TrainedModel, settings: Settings) -> Captioned:
    config = trained.run.method
    if not isinstance(config, TextToImageConfig):
        raise ConfigError(f"{config.name} does not read prompts. Choose the method text_to_image.")
    slices = read_real(chosen, trained.run, settings, trained.model)
    captions = captions_of(chosen, config, settings)
    return Captioned(slices, tuple(captions[ref.slice_id] for ref in slices.refs))
