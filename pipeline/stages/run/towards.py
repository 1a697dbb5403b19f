"""A second domain that a model learns to translate to: its data, and which of its slices go with those of the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from pipeline.config import Config
from pipeline.data.images.intensity import NormaliserConfig
from pipeline.errors import EmptySelection
from pipeline.nn.rng import row_key
from pipeline.types import SliceRef

Place = tuple[str, float]  # a patient, and a position along the series


class TowardsConfig(Config):
    """The domain that images are translated to: another scanner, or another modality."""

    route: str = Field(min_length=1, description="name of the route whose series show the second domain")
    normaliser: NormaliserConfig = Field(description="its intensity range, image size and body mask")


def place_of(ref: SliceRef) -> Place:
    """Return where a slice was taken: slices of two series with the same place show the same part of one patient."""
    return ref.patient_id, round(ref.relative_position, 3)


def find_places(refs: Sequence[SliceRef]) -> dict[Place, int]:
    """Return the index of each place that exactly one slice has; where there are two, nobody says which to take."""
    count = Counter(map(place_of, refs))
    return {place_of(ref): index for index, ref in enumerate(refs) if count[place_of(ref)] == 1}


def pair_rows(source: Sequence[SliceRef], target: Sequence[SliceRef], routes: Mapping[str, str]) -> list[list[int]]:
    """Return the indices of slices of the same patient at the same position: [source, target] each.

    Args:
        source, target: slices of the two domains, registered to each other.
        routes: names of both routes, for messages.

    Raises:
        EmptySelection: there is no such pair.
    """
    places = find_places(target)
    rows = [[index, places[place]] for place, index in find_places(source).items() if place in places]
    if not rows:
        raise EmptySelection(
            f"No slice of {routes['source']} has a counterpart in {routes['target']}: a slice of the same patient at "
            "the same relative position, of which each route has one. Ingest both examinations of the same patients, "
            "or choose a method that learns without pairs, such as cycle_gan."
        )
    return rows


def unpaired_rows(source: Sequence[SliceRef], target: Sequence[SliceRef], routes: Mapping[str, str]) -> list[list[int]]:
    """Return indices [source, target] such that no patient is in both columns.

    Patients with both domains are in one of them only, half of them in each, by the hash of their pseudonyms; each
    slice that is left occurs.

    Raises:
        EmptySelection: one of the domains has no slices left.
    """
    both = {ref.patient_id for ref in source} & {ref.patient_id for ref in target}
    by_hash = sorted(both, key=lambda patient: row_key("unpaired", patient))
    first, second = set(by_hash[::2]), set(by_hash[1::2])
    ours = [index for index, ref in enumerate(source) if ref.patient_id not in second]
    theirs = [index for index, ref in enumerate(target) if ref.patient_id not in first]
    if not ours or not theirs:
        raise EmptySelection(
            f"Without pairs, {routes['source']} has {len(ours)} slices and {routes['target']} {len(theirs)} of other "
            "patients, and both are needed. Ingest and label more normal patients."
        )
    theirs.sort(key=lambda index: row_key("unpaired", target[index].slice_id))
    return [[ours[number % len(ours)], theirs[number % len(theirs)]] for number in range(max(len(ours), len(theirs)))]
