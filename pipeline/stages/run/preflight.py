"""Count, before a training begins, what it would learn from and whether its calibration can promise what is asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import ALL_SETS, Selection
from pipeline.data.sets.series_list import ListedSeries, UnusedCode, count_causes, list_series, used_slices
from pipeline.detection.two_sided import LEAST
from pipeline.errors import EmptySelection, RejectionCode, TooFewNormals
from pipeline.stages.run.load_slices import read_folded_sets
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import NORMAL_SETS, SetName, SliceRef

Purpose = Literal["flag", "rank", "model"]
SEE = "List them with nightread series --unused"


@dataclass(frozen=True, slots=True)
class SetCount:
    """Size of one set on a route; `units` are its independent cases, or its slices where the run's unit is a slice."""

    name: SetName
    patients: int
    series: int
    slices: int
    units: int


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run would learn from.

    Attributes:
        route: that it reads.
        sets: sizes in the order of `ALL_SETS`.
        left_out: labelled series that are not used, by code.
        normal: series with a normal label, used or not; `unlabelled`: series of the route without a label.
        needed: calibration units for the run's false-positive rate `alpha`; 0 where it promises none.
    """

    route: str
    sets: tuple[SetCount, ...]
    left_out: Mapping[str, int]
    normal: int
    unlabelled: int
    needed: int
    alpha: float = 0.0

    def of(self, name: SetName) -> SetCount:
        """Return the size of one set."""
        return next(count for count in self.sets if count.name == name)

    def causes(self) -> str:
        """Return why labelled series are not used, with counts and a leading space; "" if all are."""
        if not self.left_out:
            return ""
        named = ", ".join(f"{count} {code}" for code, count in Counter(self.left_out).most_common())
        return f" Labelled series that are not used: {named}. {SEE}"

    def lines(self) -> str:
        """Return the table of the sets, what was left out, and what calibration can promise."""
        lines = [f"Sets on the route {self.route}:", f"  {'set':<10}{'patients':>10}{'series':>10}{'slices':>10}"]
        lines += [f"  {one.name:<10}{one.patients:>10}{one.series:>10}{one.slices:>10}" for one in self.sets]
        lines += [f"Series without a label, to be scored: {self.unlabelled}."] if self.unlabelled else []
        lines += [self.causes().strip()] if self.left_out else []
        if self.needed:
            have = self.of("calibrate").units
            lines += [f"Calibration: {have} units, and {100 * self.alpha:g} % false positives need {self.needed}."]
        return "\n".join(lines)


def list_as_run(catalogue: Catalogue, settings: Settings, file: Path | None = None) -> list[ListedSeries]:
    """Return the series of the catalogue as the run of a file judges them, or with the defaults.

    Raises:
        ConfigError: the file or the routes are not valid.
    """
    routes = load_routes(settings.routes_folder)
    if file is None:
        return list_series(catalogue, routes)
    data = load_config(file, RunConfig).data
    return list_series(catalogue, routes, data.allowed, read_folded_sets(catalogue, data.fold, data.splits))


def count_sets(config: RunConfig, settings: Settings, catalogue: Catalogue) -> Preflight:
    """Count the patients, series and slices of every set on the run's route; nothing but labels is read.

    Raises:
        CatalogueError: the database cannot be read.
    """
    data = config.data
    sets_of = read_folded_sets(catalogue, data.fold, data.splits)
    listed = list_series(catalogue, load_routes(settings.routes_folder), data.allowed, sets_of)
    here = [one for one in listed if one.route in ("", data.route)]
    on_route = [_whole(one, config) for one in here if one.route]
    unused = [one for one in (*on_route, *(one for one in here if not one.route)) if one.labelled]
    flagging = None if config.detection is None else config.detection.flagging
    promised = flagging is not None and flagging.rule == "fpr"
    return Preflight(
        route=data.route,
        sets=tuple(_count(name, list(used_slices(on_route, name)), config) for name in ALL_SETS),
        left_out=dict(count_causes(unused)),
        normal=sum(any(ref.label == "normal" for ref in one.refs) for one in here),
        unlabelled=sum(not one.labelled for one in on_route),
        needed=math.ceil(1 / Fraction(repr(flagging.alpha))) - 1 if flagging is not None and promised else 0,
        alpha=flagging.alpha if flagging is not None else 0.0,
    )


def _whole(one: ListedSeries, config: RunConfig) -> ListedSeries:
    """Return a volume that enters a set of normals only in part as not used, as it enters whole or not at all."""
    partly = config.data.volumes is not None and one.set_name in NORMAL_SETS and 0 < one.used < one.slices
    return replace(one, used=0, code=RejectionCode.PARTLY_NORMAL.value) if partly else one


def _count(name: SetName, refs: Sequence[SliceRef], config: RunConfig) -> SetCount:
    patients = len({ref.patient_id for ref in refs})
    studies = len({ref.study_id for ref in refs})
    independent = studies if config.data.splits.mixed_patients else patients
    units = len(refs) if config.unit == "slice" else independent
    return SetCount(name, patients, len({ref.stack_id for ref in refs}), len(refs), units)


def refuse_without_normals(counts: Preflight) -> None:
    """Refuse a training without normals, with the causes.

    Raises:
        EmptySelection: the train set has no slices.
    """
    if counts.of("train").slices:
        return
    head = f"There are no normal scans to train on for the route {counts.route!r}."
    elsewhere = [f"{one.patients} in {one.name}" for one in counts.sets if one.patients]
    if elsewhere:
        head += f" Patients of the route in other sets: {', '.join(elsewhere)}; label more normal patients."
    if not counts.normal:
        head += " Ingest scans and import labels that say which are normal with nightread labels import FILE.csv."
    if counts.left_out.get(UnusedCode.NO_PATIENT_ID):
        head += " A patient without a Patient ID is never learned from: give each person an ID when you de-identify."
    raise EmptySelection(head + counts.causes())


def refuse_uncalibrated(counts: Preflight, config: RunConfig, purpose: Purpose) -> None:
    """Refuse, before the first step, a training whose calibration would be refused after the last.

    Args:
        counts: of the run's sets.
        config: the run.
        purpose: "flag" needs a threshold, "rank" only scores that can be compared, as in a table of methods, "model" no
            calibration at all.

    Raises:
        EmptySelection: the calibrate set has no slices.
        TooFewNormals: it has too few units for the false-positive rate, or validate too few slices for a two-sided
            score; the error has the count and the least.
    """
    if config.detection is None or purpose == "model":
        return
    calibrate, validate = counts.of("calibrate"), counts.of("validate")
    if not calibrate.slices:
        raise EmptySelection(
            f"There are no normal scans in the calibrate set of {counts.route!r}, so the detector could not be "
            f"calibrated after training. Label more normal patients.{counts.causes()}"
        )
    if purpose == "flag" and calibrate.units < counts.needed:
        what = f"A false-positive rate of {100 * counts.alpha:g} %"
        raise TooFewNormals(calibrate.units, counts.needed, what)
    if config.detection.transform != "none" and validate.slices < LEAST:
        raise TooFewNormals(validate.slices, LEAST, "A two-sided score (slices of the validate set)")


def refuse_nothing_new(sets: Mapping[SetName, Selection], unlabelled: Selection | None, config: RunConfig) -> None:
    """Refuse to teach with scans that the teacher learned as normal, or without normals that set its thresholds."""
    if unlabelled is None:
        return
    if {ref.slice_id for ref in unlabelled.slices} <= {ref.slice_id for ref in sets["train"].slices}:
        raise EmptySelection(
            f"There are no unlabelled scans to learn from on the route {config.data.route!r}: all scans of patients in "
            "train are labelled normal. Set data.splits.unlabelled to the share of patients without labels who enter "
            f"train for good, or remove `unlabelled`.{unlabelled.left_out()}"
        )
    if not sets["validate"].slices:
        raise EmptySelection(
            "A run with `unlabelled` needs validate normals, which set the thresholds of its findings. Set "
            "data.splits.normals.validate above 0, or label more normal patients."
        )
