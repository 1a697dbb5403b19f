"""Make the plan of an automatic run: assign sets, look at the normals, apply the rules, time a few steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import Selection, list_patients_on, select_slices
from pipeline.data.sets.splits import SplitPolicy, assign_sets
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.geometry import Allowed
from pipeline.errors import EmptySelection
from pipeline.stages.auto import rules
from pipeline.stages.auto.members import FROZEN, Build, Role, build_members, with_budget
from pipeline.stages.auto.plan import Plan, plan_file, read_plan, write_plan
from pipeline.stages.auto.rules import Choice
from pipeline.stages.auto.scan_facts import Facts, People, measure_facts
from pipeline.stages.auto.timing import Share, divide, measure_seconds_per_image
from pipeline.stages.run.auto_config import AutoConfig
from pipeline.stages.run.load_slices import dataset, read_folded_sets
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import NORMAL_SETS, SetName

TIMED = 64  # training slices that are read to time a few steps
ALLOWED = Allowed(tilt=True)  # slices are scored one by one
MANY_SLICES = 10  # slices per series from which its highest three are averaged


def make_plan(config: AutoConfig, settings: Settings, again: bool = False) -> Plan:
    """Return the plan for a route and its current normals; the same inputs give the stored plan, unless `again`.

    Raises:
        EmptySelection: the route has no scans, or none of its normals can be read.
        TooFewNormals: there are fewer normals than a detector needs; the error has the count and the least.
    """
    with Catalogue.open(settings) as catalogue:
        chosen = _choose_sets(config, settings, catalogue)
        sets = _assign(config, _policy(config, chosen), settings, catalogue)
    data = fingerprint([ref for one in sets.values() for ref in one.slices])["sha256"]
    file = plan_file(settings, f"{config.data.route}-{config.fingerprint()[:6]}{data[:6]}")
    stored = None if again else read_plan(file)
    if stored is not None:
        return stored
    write_plan(file, _plan(config, settings, sets, chosen))
    return cast(Plan, read_plan(file))  # as a later call reads it


def _choose_sets(config: AutoConfig, settings: Settings, catalogue: Catalogue) -> Choice:
    """Choose how the route's patients are divided, by their labels."""
    routes = load_routes(settings.routes_folder)
    every = select_slices(catalogue, route=config.data.route, routes=routes, allowed=ALLOWED)
    if not every.slices:
        raise EmptySelection(
            f"The route {config.data.route!r} has no scans here that a detector of slices can learn from."
            f"{every.left_out()} nightread rejections says why single series are not used. Or ingest scans of the "
            "route and import labels that say which are normal."
        )
    return _given(config) or rules.choose_sets(People.count(every.slices))


def _given(config: AutoConfig) -> Choice | None:
    splits = config.data.splits
    if splits is None:
        return None
    unit = "slice" if splits.mixed_patients else "study"
    given = splits.model_dump(mode="json", exclude_unset=True)
    return Choice("sets", {"unit": unit, "splits": given}, "the configuration gives them.")


def _policy(config: AutoConfig, sets: Choice) -> SplitPolicy:
    drawn_from = {"drawn_from": config.data.drawn_from} if config.data.splits is None else {}
    return SplitPolicy.model_validate({**drawn_from, **sets.value["splits"]})


def _assign(
    config: AutoConfig, policy: SplitPolicy, settings: Settings, catalogue: Catalogue
) -> dict[SetName, Selection]:
    """Assign patients who have no set yet, and return the normals of the sets that a detector is made of."""
    routes = load_routes(settings.routes_folder)
    assign_sets(catalogue, policy, list_patients_on(catalogue, config.data.route, routes))
    folded = read_folded_sets(catalogue, config.data.fold, policy)
    return {
        name: select_slices(
            catalogue, route=config.data.route, routes=routes, sets=(name,), allowed=ALLOWED, sets_of=folded
        )
        for name in NORMAL_SETS
    }


def _plan(config: AutoConfig, settings: Settings, sets: dict[SetName, Selection], chosen: Choice) -> Plan:
    cases = sets["calibrate"].slices
    units = len(cases) if chosen.value["unit"] == "slice" else len({ref.patient_id for ref in cases})
    rules.require_normals(len(sets["train"].slices), len(sets["validate"].slices), units)
    facts = measure_facts(sets["train"], sets["validate"], units, PixelStore(settings.store))
    choices, build = _apply(facts, config)
    values = {choice.what: choice.value for choice in choices}
    base = _chosen_config(config, chosen, facts, values)
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


def _chosen_config(config: AutoConfig, sets: Choice, facts: Facts, values: dict[str, Any]) -> dict[str, Any]:
    """Return the ensemble's configuration without its members."""
    many = facts.slices_per_series >= MANY_SLICES
    return {
        "name": config.name,
        "unit": sets.value["unit"],
        "data": {
            "route": config.data.route,
            "normaliser": values["normaliser"],
            "allow_tilt": ALLOWED.tilt,
            "fold": None if config.data.fold is None else config.data.fold.model_dump(mode="json"),
            "splits": _policy(config, sets).model_dump(mode="json"),
        },
        "training": {"seed": config.seed},
        "detection": {
            "residual": {"adjacent": values["adjacent"]},
            "aggregate": {"slices": "top_k_mean" if many else "max"},
            "flagging": values["flagging"],
        },
        "evaluation": config.evaluation.model_dump(mode="json"),
    }


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
    part = replace(train, slices=few, members={ref.stack_id: train.members[ref.stack_id] for ref in few})
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
