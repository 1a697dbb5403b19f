"""Selection of a stage's slices and their data sets, shared by training, scoring and evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import Cache, SliceDataset
from pipeline.data.images.normalise import Normaliser
from pipeline.data.images.training_cubes import PatchDataset
from pipeline.data.sets.folds import Fold, read_sets_under
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import Selection, select_slices
from pipeline.data.sets.splits import SplitPolicy
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import EmptySelection
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.towards import pair_rows, unpaired_rows
from pipeline.training.order import Images
from pipeline.training.with_targets import WithTargets
from pipeline.types import NORMAL_SETS, Label, SetName


def choose(
    catalogue: Catalogue,
    config: RunConfig,
    settings: Settings,
    sets: Sequence[SetName] | None = None,
    labels: Sequence[Label] | None = None,
    study_ids: Collection[str] | None = None,
) -> Selection:
    """Choose slices of the configuration's route; with `sets`, only of these sets, under its fold if it has one.

    Volumes with slices that may not enter the sets of normals are left out completely, since a cube contains what
    surrounds a slice.
    """
    chosen = select_slices(
        catalogue,
        route=config.data.route,
        routes=load_routes(settings.routes_folder),
        sets=sets,
        labels=labels,
        study_ids=study_ids,
        allowed=config.data.allowed,
        sets_of=None if sets is None else read_folded_sets(catalogue, config.data.fold, config.data.splits),
    )
    normals = sets is not None and set(sets) <= set(NORMAL_SETS)
    return chosen.whole() if normals and config.data.volumes is not None else chosen


def choose_unlabelled(catalogue: Catalogue, config: RunConfig, settings: Settings) -> Selection:
    """Choose all slices of the patients in train, under the configuration's fold if it has one, whatever their labels.

    Only slices whose flag a reader dismissed are left out, since they are false alarms by construction.

    For `RunConfig.unlabelled` alone: what learns from them must not read their labels.
    """
    train: tuple[SetName, ...] = ("train",)
    chosen = select_slices(
        catalogue,
        route=config.data.route,
        routes=load_routes(settings.routes_folder),
        sets=train,
        allowed=config.data.allowed,
        sets_of=read_folded_sets(catalogue, config.data.fold, config.data.splits),
        unlabelled=True,
    )
    hidden = {
        key: tuple(replace(ref, label="unknown", mask_key=None) for ref in refs) for key, refs in chosen.members.items()
    }
    slices = tuple(ref for refs in hidden.values() for ref in refs if not ref.dismissed_flag)
    return replace(chosen, slices=slices, members=hidden)


def read_folded_sets(catalogue: Catalogue, fold: Fold | None, splits: SplitPolicy) -> dict[str, SetName] | None:
    """Return the patients' sets under a fold, by pseudonym; None without one, as the stored sets hold then."""
    if fold is None:
        return None
    with catalogue.reading() as session:
        return read_sets_under(session, fold, by_pixels=splits.drawn_from == "pixels")


def dataset(
    selection: Selection, config: RunConfig, settings: Settings, cache: Cache | None = None, whole: bool | None = None
) -> SliceDataset:
    """Return the normalised slices of a selection, cached as the configuration says unless `cache` is given.

    `whole` also loads the rest of their series; None does so if the detector reads whole series.
    """
    return SliceDataset(
        selection.slices,
        PixelStore(settings.store),
        Normaliser(config.data.normaliser),
        cache=cache or config.data.cache,
        cache_dir=settings.workspace / "cache",
        members=selection.members,
        ram_bytes=int(config.data.ram_gib * 2**30),
        whole=config.whole if whole is None else whole,
    )


def lessons(selection: Selection, config: RunConfig, settings: Settings) -> SliceDataset | PatchDataset:
    """Return the training data of a model: normalised slices, or cubes of volumes."""
    data = dataset(selection, config, settings, whole=config.data.volumes is not None)
    return data if config.data.volumes is None else PatchDataset(data, config.data.volumes)


def lessons_towards(
    source: Selection, target: Selection, config: RunConfig, settings: Settings, needed: bool = True
) -> Images:
    """Return the training data of a translator: slices of one domain, each with one of the other.

    Raises:
        EmptySelection: there are no pairs, or without pairs a domain has no patients of its own, and it is `needed`.
    """
    other = config.build_other_side()
    ours, theirs = dataset(source, config, settings), dataset(target, other, settings)
    routes = {"source": config.data.route, "target": other.data.route}
    match = unpaired_rows if config.method.unpaired else pair_rows
    try:
        rows = match(ours.slices, theirs.slices, routes)
    except EmptySelection:
        if needed:
            raise
        rows = []
    return WithTargets(ours, theirs, rows)
