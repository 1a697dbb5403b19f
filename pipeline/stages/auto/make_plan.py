"""Make the plan of an automatic run: assign sets, look at the normals, apply the rules, time a few steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import Selection, select_slices
from pipeline.data.sets.splits import assign_sets
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import EmptySelection
from pipeline.stages.auto import rules
from pipeline.stages.auto.members import FROZEN, Build, Role, build_members, with_budget
from pipeline.stages.auto.plan import Plan, plan_file, read_plan, write_plan
from pipeline.stages.auto.rules import Choice
from pipeline.stages.auto.scan_facts import Facts, People, measure_facts
from pipeline.stages.auto.timing import Share, divide, measure_seconds_per_image
from pipeline.stages.run.auto_config import AutoConfig
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SetName

TIMED = 64  # training slices that are read to time a few steps
MANY_SLICES = 10  # slices per series from which its highest three are averaged


def make_plan(config: AutoConfig, settings: Settings, again: bool = False) -> Plan:
    """Return the plan for a route and its current normals; the same inputs give the stored plan, unless `again`.

    Raises:
        EmptySelection: the route has no scans, or none of its normals can be read.
        TooFewNormals: there are fewer normals than a detector needs; the error has the count and the least.
    """
    with Catalogue.open(settings) as catalogue:
        sets_choice = _assign(config, settings, catalogue)
        first = _first_config(config, sets_choice)
        names: tuple[SetName, ...] = ("train", "validate", "calibrate")
        sets = {name: choose(catalogue, first, settings, sets=(name,)) for name in names}
    data = fingerprint([ref for chosen in sets.values() for ref in chosen.slices])["sha256"]
    file = plan_file(settings, f"{config.data.route}-{config.fingerprint()[:6]}{data[:6]}")
    stored = None if again else read_plan(file)
    if stored is not None:
        return stored
    write_plan(file, _plan(config, settings, first, sets, sets_choice))
    return cast(Plan, read_plan(file))  # as a later call reads it


def _assign(config: AutoConfig, settings: Settings, catalogue: Catalogue) -> Choice:
    """Choose how patients are divided, and assign those who have no set yet."""
    routes = load_routes(settings.routes_folder)
    every = select_slices(catalogue, route=config.data.route, routes=routes).slices
    if not every:
        raise EmptySelection(
            f"The route {config.data.route!r} takes none of the scans here. See the routes and what they take with "
            "nightread status, or ingest its scans and import labels that say which are normal."
        )
    choice = _given(config) or rules.choose_sets(People.count(every))
    policy = _first_config(config, choice).data.splits
    assign_sets(catalogue, policy, {ref.patient_id for ref in every})
    return choice


def _given(config: AutoConfig) -> Choice | None:
    splits = config.data.splits
    if splits is None:
        return None
    unit = "slice" if splits.mixed_patients else "study"
    given = splits.model_dump(mode="json", exclude_unset=True)
    return Choice("sets", {"unit": unit, "splits": given}, "the configuration gives them.")


def _first_config(config: AutoConfig, sets: Choice) -> RunConfig:
    """Return a run's configuration that knows who is in which set, and nothing of the images yet."""
    splits = {"drawn_from": config.data.drawn_from} if config.data.splits is None else {}
    return RunConfig.model_validate(
        {
            "name": config.name,
            "unit": sets.value["unit"],
            "data": {
                "route": config.data.route,
                "allow_tilt": True,  # slices are scored one by one
                "normaliser": {"kind": "range"},
                "fold": config.data.fold,
                "splits": {**splits, **sets.value["splits"]},
            },
            "method": {"name": "gated_dae"},
            "training": {"seed": config.seed},
            "detection": {},
            "evaluation": config.evaluation,
        }
    )


def _plan(
    config: AutoConfig, settings: Settings, first: RunConfig, sets: dict[SetName, Selection], chosen: Choice
) -> Plan:
    cases = sets["calibrate"].slices
    units = len(cases) if first.unit == "slice" else len({ref.patient_id for ref in cases})
    rules.require_normals(len(sets["train"].slices), len(sets["validate"].slices), units)
    facts = measure_facts(sets["train"], sets["validate"], units, PixelStore(settings.store))
    choices, build = _apply(facts, config)
    values = {choice.what: choice.value for choice in choices}
    base = _chosen_config(first, facts, values)
    sections = build_members(build)
    shares = _time(base, sections, config, settings, sets["train"])
    members = [
        {"train": part if role in FROZEN else with_budget(part, shares[role].images, shares[role].seconds)}
        for role, part in sections.items()
    ]
    run = RunConfig.model_validate({**base, "method": {"name": "ensemble", "members": members}})
    minutes = sum(share.expected for share in shares.values()) / 60
    trust: dict[str, float] = {role: values["trust"][role] for role in sections}
    return Plan(facts, (chosen, *choices, _budgets(shares)), run, minutes, config.method.budget_minutes, trust)


def _apply(facts: Facts, config: AutoConfig) -> tuple[tuple[Choice, ...], Build]:
    """Apply the rules in order; return their choices, and what these say about the members."""
    size = rules.choose_size(facts)
    mirror, adjacent, score = rules.choose_mirror(facts), rules.choose_adjacent(facts), rules.choose_score(facts)
    repairs = rules.choose_reconstructor(facts, size.value, config.method.reconstructor)
    frozen = rules.choose_features(size.value)
    build = Build(
        image_size=size.value,
        mirrored=mirror.value,
        adjacent=adjacent.value,
        reconstructor=repairs.value,
        backbone=frozen.value["backbone"],
        lesions=score.value["lesions"],
        features=score.value["features"],
        seed=config.seed,
    )
    rest = (rules.choose_trust(facts), rules.choose_flagging(facts))
    return (size, rules.choose_normaliser(facts, size.value), mirror, adjacent, repairs, frozen, score, *rest), build


def _chosen_config(first: RunConfig, facts: Facts, values: dict[str, Any]) -> dict[str, Any]:
    """Return the ensemble's configuration without its members."""
    many = facts.slices_per_series >= MANY_SLICES
    detection = {
        "residual": {"adjacent": values["adjacent"]},
        "aggregate": {"slices": "top_k_mean" if many else "max"},
        "flagging": values["flagging"],
    }
    base = first.model_dump(mode="json", exclude={"method", "detection"})
    return {**base, "data": {**base["data"], "normaliser": values["normaliser"]}, "detection": detection}


def _time(
    base: dict[str, Any], sections: dict[Role, dict[str, Any]], config: AutoConfig, settings: Settings, train: Selection
) -> dict[Role, Share]:
    """Time a few steps of every member on some training slices, and divide the budget."""
    runs = {role: RunConfig.model_validate({**base, **part}) for role, part in sections.items()}
    data = _few(train, next(iter(runs.values())), settings)
    seconds = {role: measure_seconds_per_image(run, data) for role, run in runs.items()}
    return divide(config.method.budget_minutes, seconds, len(train.slices))


def _few(train: Selection, run: RunConfig, settings: Settings) -> SliceDataset:
    few = train.slices[:TIMED]
    part = replace(train, slices=few, members={ref.series_id: train.members[ref.series_id] for ref in few})
    data = dataset(part, run, settings, cache="ram", whole=False)
    if not len(data):
        raise EmptySelection(
            f"None of the first {len(few)} normal slices can be used, for example: "
            f"{data.rejected[0].sentence if data.rejected else 'none'} See nightread doctor"
        )
    return data


def _budgets(shares: dict[Role, Share]) -> Choice:
    images = {role: share.images for role, share in shares.items()}
    return Choice("images", images, "that many fit into the budget on this machine, and more of the same teach little.")
