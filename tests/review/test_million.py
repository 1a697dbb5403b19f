"""A catalogue of a million instances: what a night's start, a selection and a page of the reading list cost.

`NIGHTREAD_TEST_INSTANCES=1000000 pytest -m slow -s tests/review/test_million.py` prints the table of
`docs/results/scale.md`; the slow suite fills a tenth of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from sqlalchemy import Connection, select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.catalogue.scoring_claims import join_run, list_unscored
from pipeline.data.sets.routes import Route
from pipeline.data.sets.selection import select_slices
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.review.services import Review
from pipeline.review.worklist import STATES, WorklistQuery

INSTANCES = int(os.environ.get("NIGHTREAD_TEST_INSTANCES", "100000"))
SLICES = 50
COMPARED = 200_000  # in a larger catalogue the selection of everything is not timed
TONIGHT, LABELLED = 0.01, 0.09  # shares of the studies; the others were scored before
SHA = "c" * 64
ROUTE = Route(name="ct", modality=("CT",))


def template() -> str:
    """The attributes of a slice as JSON; the two odd numbers are replaced by its position and number."""
    shared = InstanceAttributes(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", modality="CT", body_part="HEAD",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"), manufacturer="MAKER", scanner="MODEL", kernel="H30s", rows=512,
        columns=512, orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), pixel_spacing_mm=(0.5, 0.5), rescale=((1.0, -1024.0),),
        positions=((-120.0, -110.5, 98765.5),), instance_number=98764,
    )  # fmt: skip
    return json.dumps(shared.to_json())


class Filler:
    """Fills the tables by statements that both databases run themselves: a million rows take seconds."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.postgresql = connection, connection.dialect.name == "postgresql"

    def hex(self, number: str) -> str:
        return f"lpad(to_hex(({number})::bigint), 32, '0')" if self.postgresql else f"printf('%032x', {number})"

    def run(self, table: str, columns: dict[str, str], first: int, count: int) -> None:
        """Insert rows number `first` .. `first + count - 1`; the columns are SQL over the number `i`."""
        source = f"SELECT generate_series({first}, {first + count - 1})"
        if not self.postgresql:
            source = f"SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first + count - 1}"
        kind = "" if self.postgresql else "RECURSIVE "
        sql = f"INSERT INTO {table} ({', '.join(columns)}) "
        numbers = f"WITH {kind}n(i) AS ({source}) "
        ours = f"SELECT {', '.join(columns.values())} FROM n"
        self.connection.exec_driver_sql(numbers + sql + ours if self.postgresql else sql + numbers + ours)


def fill(catalogue: Catalogue, instances: int) -> int:
    """Fill the catalogue and return the number of studies."""
    studies = instances // SLICES
    new, labelled = int(studies * TONIGHT), int(studies * LABELLED)
    scored = studies - new - labelled
    run_id = catalogue.start_run("score", "ct", "runs/champion")
    when, then = "'2026-01-01 00:00:00'", "'2026-01-02 00:00:00'"
    with catalogue.session() as session:
        filler = Filler(session.connection())
        as_json = "::json" if filler.postgresql else ""
        text = template().replace("'", "''")
        # Without the operator %, which psycopg reads as a placeholder.
        within, rank = f"(i - i / {SLICES} * {SLICES})", "((i - i / 500 * 500 + 1) / 1000.0)"
        place, number = f"cast({within} * 2.5 as text)", f"cast({within} + 1 as text)"
        slice_ = f"replace(replace('{text}', '98765.5', {place}), '98764', {number})"
        yes, no = ("true", "false") if filler.postgresql else ("1", "0")
        patient, owner = filler.hex("i"), filler.hex(f"i / {SLICES}")
        filler.run(
            "patients",
            {"patient_id": patient, "draw": "0.5", "set_name": "'develop'", "set_reason": "''", "identified": yes,
             "image_is_subject": no, "first_seen_at": when}, 0, studies,
        )  # fmt: skip
        filler.run("studies", {"study_id": patient, "patient_id": patient, "first_seen_at": when}, 0, studies)
        about = {"modality": "'CT'", "attributes": f"('{text}'){as_json}", "first_seen_at": when}
        filler.run("series", {"series_id": patient, "study_id": patient, **about}, 0, studies)
        filler.run(
            "instances",
            {"instance_id": filler.hex("i"), "series_id": owner, "content_hash": "''", "attributes_hash": "''",
             "pixel_key": filler.hex("i"), "frames": "1", "attributes": f"({slice_}){as_json}", "version": "1",
             "frame_of_reference_id": "'f'", "ingested_at": when}, 0, instances,
        )  # fmt: skip
        said = {"label": "'normal'", "source": "'x'", "reader": "''", "labelled_on": "''", "official_set": "''"}
        filler.run("labels", {"level": "'study'", "subject": patient, **said, "imported_at": when}, scored, labelled)
        evidence = f'(\'[{{"series_id": "x", "score": 1}}]\'){as_json}'
        filler.run(
            "findings",
            {"id": "i + 1", "study_id": patient, "patient_id": patient, "route": "'ct'", "model_sha256": f"'{SHA}'",
             "run_id": f"'{run_id}'", "score": "i", "p_value": rank, "n_calibration": "999",
             "guarantee": "'conformal'", "flagged": yes, "rule": "'fpr'", "evidence": evidence, "scored_at": then},
            0, scored,
        )  # fmt: skip
        filler.run(
            "reading_list",
            {"finding_id": "i + 1", "place": rank, "tie": "0.5", "blinded": yes, "modality": "'CT'",
             "body_part": "'HEAD'", "route": "'ct'", "model_sha256": f"'{SHA}'", "arrived_at": when, "listed_at": then},
            0, scored,
        )  # fmt: skip
        filler.run(
            "decisions",
            {"id": "i + 1", "finding_id": "i + 1", "number": "1", "token": filler.hex("i"), "outcome": "'dismissed'",
             "run_id": f"'{run_id}'", "reader": "'reader'", "model_sha256": f"'{SHA}'", "score": "1", "blind": yes,
             "chain_hash": "''", "decided_at": then, "code": "''", "scheme": "''", "meaning": "''", "free_text": "''",
             "comment": "''"}, 0, scored * 9 // 10,
        )  # fmt: skip
    with catalogue.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return studies


def start_night(catalogue: Catalogue) -> int:
    """What `score` does before it scores: the studies that its detector lacks, their slices, and the claims."""
    fresh, later = list_unscored(catalogue, SHA)
    selection = select_slices(catalogue, route="ct", routes=(ROUTE,), study_ids=fresh | later)
    read = {ref.study_id for ref in selection.slices if ref.label != "unknown"}
    studies = {ref.study_id for ref in selection.slices} - read
    join_run(catalogue, "ct", "runs/champion", SHA, studies)
    return len(studies)


def select_everything(catalogue: Catalogue) -> int:
    """The same, as `score` did it at first: every finding with its evidence, and the slices of every study."""
    with catalogue.reading() as session:
        done = {row.study_id for row in session.scalars(select(FindingRow))}
    selection = select_slices(catalogue, route="ct", routes=(ROUTE,))
    return len({ref.study_id for ref in selection.slices if ref.label == "unknown"} - done)


def measure(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, processor seconds of this process, and what the work returned."""
    began, used = time.perf_counter(), time.process_time()
    value = work()
    return time.perf_counter() - began, time.process_time() - used, value


def resident_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.slow
def test_a_night_starts_in_a_moment(catalogue: Catalogue, review: Review, capsys: pytest.CaptureFixture[str]) -> None:
    filled, _, studies = measure(lambda: fill(catalogue, INSTANCES))
    resting, lines = resident_mib(), []
    wall, used, tonight = measure(lambda: start_night(catalogue))
    lines.append(("start of a night", wall, used, resident_mib() - resting))
    assert tonight == int(studies * TONIGHT)
    pages = {
        "all": WorklistQuery(),
        **{state: WorklistQuery(states=frozenset({state})) for state in STATES},
        "by modality": WorklistQuery(modality="CT", body_part="HEAD"),
    }
    times = [measure(lambda q=q: review.worklist.read_page(q))[:2] for _ in range(5) for q in pages.values()]
    walls, uses = zip(*times, strict=True)
    lines.append(("page of the reading list, p95", np.quantile(walls, 0.95), np.quantile(uses, 0.95), 0.0))
    counts = [measure(lambda: review.worklist.count_states(WorklistQuery()))[:2] for _ in range(5)]
    lines.append(("counts by state, median", *np.median(counts, axis=0), 0.0))
    used_of_all = np.inf
    if INSTANCES <= COMPARED:
        resting = resident_mib()
        wall_of_all, used_of_all, same = measure(lambda: select_everything(catalogue))
        lines.append(("selection of everything", wall_of_all, used_of_all, resident_mib() - resting))
        assert same == tonight
    with capsys.disabled():
        name = catalogue.engine.dialect.name
        print(f"\n{name}: {INSTANCES} instances, {studies} studies, {tonight} new; filled in {filled:.0f} s")
        for what, seconds, processor, grown in lines:
            print(f"  {what}: {seconds:.3f} s, of it {processor:.3f} s of this process; {grown:+.0f} MiB")
    assert used * 3 < used_of_all
