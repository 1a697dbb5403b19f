"""A catalogue with findings entered straight into its tables, on either database, and people who read them."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from pipeline.config import ReviewPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.catalogue.schema import FindingRow, Instance, Patient, Series, Study
from pipeline.review.decisions import Form
from pipeline.review.permissions import Actor
from pipeline.review.services import Review
from pipeline.types import Finding, SliceScore


def pseudonym(*parts: object) -> str:
    """Return 32 hex digits that look like a pseudonym."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Nights:
    """Enters nights into a catalogue: studies with one image each, and a detector's findings for them."""

    catalogue: Catalogue

    def scans(self, names: Sequence[object], modality: str = "MR", body_part: str = "BRAIN") -> None:
        """Enter studies of one image, each from another patient."""
        keys = [
            {level: pseudonym(level, name) for level in ("patient", "study", "series", "instance")} for name in names
        ]
        with self.catalogue.session() as session:
            session.add_all(Patient(patient_id=key["patient"], draw=0.5) for key in keys)
            session.flush()
            session.add_all(Study(study_id=key["study"], patient_id=key["patient"]) for key in keys)
            session.flush()
            about = {"modality": modality, "attributes": {"body_part": body_part}}
            session.add_all(Series(series_id=key["series"], study_id=key["study"], **about) for key in keys)
            session.flush()
            session.add_all(
                Instance(
                    instance_id=key["instance"],
                    series_id=key["series"],
                    content_hash="c",
                    attributes_hash="a",
                    pixel_key=f"pixels-{key['instance'][:8]}",
                    frames=1,
                    attributes={},
                )
                for key in keys
            )

    def score(
        self,
        p_values: dict[object, float],
        alpha: float = 0.05,
        policy: ReviewPolicy | None = None,
        model: str = "a" * 64,
        route: str = "phantom-mr",
        draw: bool = True,
        rng: np.random.Generator | None = None,
    ) -> str:
        """Enter one scoring run that flags findings with p <= alpha, and draw its reading list; return the run's id."""
        run_id = self.catalogue.start_run("score", route, "/runs/some-model")
        findings = []
        for name, p in p_values.items():
            ids = [pseudonym(level, name) for level in ("instance", "series", "study", "patient")]
            evidence = (SliceScore(ids[0], 0, ids[1], ids[2], ids[3], 1 - p),)
            about = {"n_calibration": 99, "guarantee": "conformal", "flagged": p <= alpha, "rule": "fpr"}
            findings.append(Finding(ids[2], ids[3], route, 1 - p, p, evidence=evidence, **about))
        self.catalogue.add_findings(run_id, findings, model)
        self.catalogue.finish_run(run_id)
        if draw:
            draw_reading_lists(self.catalogue, policy or ReviewPolicy(), rng)
        return run_id

    def finding(self, name: object) -> int:
        """Return the id of a study's (only) finding."""
        with self.catalogue.reading() as session:
            return session.scalars(select(FindingRow.id).where(FindingRow.study_id == pseudonym("study", name))).one()


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue whose tables were made once: each test gets a copy, because making them takes half a second."""
    settings = Settings(workspace=tmp_path_factory.mktemp("empty"))
    Catalogue.open(settings).close()
    return settings.workspace / "catalogue.db"


@pytest.fixture(scope="session")
def copy_postgres(postgres: str) -> Callable[[], str]:
    """The same on PostgreSQL: returns the URL of a fresh copy."""
    import psycopg

    def command(text: str) -> None:
        with psycopg.connect(f"host={postgres} user=nightread dbname=postgres", autocommit=True) as connection:
            connection.execute(text)

    def copy() -> str:
        name = f"r{uuid.uuid4().hex}"
        command(f"CREATE DATABASE {name} TEMPLATE empty_catalogue")
        return f"postgresql://nightread@/{name}?host={postgres}"

    command("CREATE DATABASE empty_catalogue")
    Catalogue.open(Settings(catalogue_url=f"postgresql://nightread@/empty_catalogue?host={postgres}")).close()
    return copy


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of a workspace with an empty catalogue, once on each database."""
    if request.param == "postgresql":
        return settings.model_copy(update={"catalogue_url": request.getfixturevalue("copy_postgres")()})
    shutil.copy(request.getfixturevalue("empty_sqlite"), settings.workspace)
    return settings


@pytest.fixture
def catalogue(any_settings: Settings) -> Iterator[Catalogue]:
    with Catalogue.open(any_settings) as opened:
        yield opened


@pytest.fixture
def nights(catalogue: Catalogue) -> Nights:
    return Nights(catalogue)


@pytest.fixture
def name_of() -> Callable[..., str]:
    """Return the pseudonym that `Nights` gives: `name_of("study", name)`."""
    return pseudonym


FAST = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
READER, OTHER, LEAD = (
    Actor("ann", "reader", "10.0.0.7"),
    Actor("ben", "reader", "10.0.0.8"),
    Actor("lea", "lead", "::1"),
)


@pytest.fixture
def people() -> dict[str, Actor]:
    """Two readers, a lead, an admin and an auditor."""
    return {"ann": READER, "ben": OTHER, "lea": LEAD, "adm": Actor("adm", "admin"), "aud": Actor("aud", "auditor")}


@pytest.fixture
def review(catalogue: Catalogue, any_settings: Settings) -> Review:
    """The reading list, whose pixels are always there and whose passwords hash in a moment."""
    return Review(catalogue, any_settings, has_pixels=lambda key: True, hasher=FAST)


@pytest.fixture
def form() -> Callable[..., Form]:
    """Make a form with a token of its own: `form(finding_id, outcome, seen=0, ...)`."""

    def make(finding_id: int, outcome: str = "confirmed", seen: int = 0, **more: Any) -> Form:
        return Form(finding_id, outcome, seen, more.pop("token", uuid.uuid4().hex), **more)

    return make
