"""Training sets of a run, and the run folder for a configuration and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import fingerprint
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import Selection, list_patients_on
from pipeline.errors import ArtefactError, CatalogueError
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.stages.run.captioned_slices import captions_of, leave_out
from pipeline.stages.run.environment import read_environment
from pipeline.stages.run.learned_patients import record_patients
from pipeline.stages.run.load_slices import choose, choose_unlabelled
from pipeline.stages.run.masked_slices import with_known_masks
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SetName

NOTHING: Mapping[str, Selection] = {}
LEARNING: dict[SetName, str] = {"train": "training", "validate": "validation"}  # set -> its name in MLflow


def learning_sets(config: RunConfig, settings: Settings, catalogue: Catalogue) -> dict[SetName, Selection]:
    """Return the training data of a run: its train and validate normals, and the labelled slices that it learns too."""
    if config.masks is not None:
        train = with_known_masks(choose(catalogue, config, settings, sets=("train", *config.masks.labelled_in)))
        return {"train": train, "validate": choose(catalogue, config, settings, sets=("validate",))}
    if config.captions is None or not isinstance(config.method, TextToImageConfig):
        return {name: choose(catalogue, config, settings, sets=(name,)) for name in LEARNING}
    train = choose(catalogue, config, settings, sets=("train", *config.captions.labelled_in))
    train = leave_out(train, captions_of(train, config.method, settings), config.captions)
    return {"train": train, "validate": choose(catalogue, config, settings, sets=("validate",))}


def list_patients_of(config: RunConfig, settings: Settings, catalogue: Catalogue) -> set[str]:
    """Return the patients of the run's route, and of the route that it translates to."""
    routes = load_routes(settings.routes_folder)
    names = [config.data.route, *([] if config.towards is None else [config.towards.route])]
    return {patient for name in names for patient in list_patients_on(catalogue, name, routes)}


def choose_beside(config: RunConfig, settings: Settings, catalogue: Catalogue) -> dict[str, Selection]:
    """Return what else a run learns from: unlabelled scans, and normals of the domain that it translates to."""
    beside = {} if config.unlabelled is None else {"unlabelled": choose_unlabelled(catalogue, config, settings)}
    if config.towards is not None:
        other = learning_sets(config.build_other_side(), settings, catalogue)
        beside |= {name_target(name): chosen for name, chosen in other.items()}
    return beside


def name_target(name: SetName) -> str:
    """Return the name, among what a run learns from beside its sets, of a set of the second domain."""
    return f"{name} of the second domain"


def make_run_folder(
    config: RunConfig,
    sets: Mapping[SetName, Selection],
    settings: Settings,
    again: bool = False,
    beside: Mapping[str, Selection] = NOTHING,
) -> RunFolder:
    """Return the folder for this configuration and data, created if missing; a new one with `again`.

    `sets` are the training sets, and `beside` is what else it learns from (`choose_beside`).
    """
    folder, asked = name_run_folder(config, sets, settings, again, beside)
    # Written again where they are damaged: the folder's name says what they must hold. The configuration last, as it
    # makes the folder a run.
    written = {
        "data.json": asked,
        "environment.json": read_environment(),
        "config.json": config.model_dump(mode="json"),
    }
    for name, value in written.items():
        if not _is_readable(folder, name):
            folder.write(name, value)
    record_patients(folder, {**beside, **{str(name): chosen for name, chosen in sets.items()}})
    return folder


def name_run_folder(
    config: RunConfig,
    sets: Mapping[SetName, Selection],
    settings: Settings,
    again: bool = False,
    beside: Mapping[str, Selection] = NOTHING,
) -> tuple[RunFolder, dict[str, Any]]:
    """Return the folder that `make_run_folder` makes, and the fingerprints of its data; nothing is written."""
    read: dict[str, Selection] = {**beside, **{str(name): chosen for name, chosen in sets.items()}}
    data = fingerprint([ref for chosen in read.values() for ref in chosen.slices])
    run_id = f"{config.data.route}-{config.method.name}-{config.fingerprint()[:6]}{data['sha256'][:6]}"
    folder, number = RunFolder(settings.runs / run_id), 2
    while again and folder.path.exists():
        folder, number = RunFolder(settings.runs / f"{run_id}-{number}"), number + 1
    return folder, {name: fingerprint(chosen.slices) for name, chosen in read.items()}


def _is_readable(folder: RunFolder, name: str) -> bool:
    try:
        return bool(folder.read(name))
    except ArtefactError:
        return False


def refuse_other_folds(opened: OpenFolder) -> None:
    """Refuse a run with a fold whose patients were reassigned since training, as it may have learned from develop.

    Stored sets never change; a fold is computed each time, and depends on the current patients and images.

    Raises:
        CatalogueError: its training data has changed since it was trained.
    """
    if opened.config.data.fold is None:
        return
    learned, sets = opened.folder.read("data.json"), learning_sets(opened.config, opened.settings, opened.catalogue)
    read: dict[str, Selection] = {str(name): chosen for name, chosen in sets.items()}
    read |= choose_beside(opened.config, opened.settings, opened.catalogue)
    changed = [name for name, chosen in read.items() if fingerprint(chosen.slices)["sha256"] != learned[name]["sha256"]]
    if changed:
        raise CatalogueError(
            f"The sets {', '.join(changed)} of {opened.folder.run_id} are not those that it was trained on: images or "
            "labels were added, so patients may have changed folds. Train it again with nightread train CONFIG"
        )
