"""Typed configuration: pydantic models from YAML, one level of `extends:`, `a.b=c` overrides, and the settings."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.invalid_values import explain


class Config(BaseModel):
    """Base of every configuration model: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal configurations have equal fingerprints."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


FILES = (".yaml", ".yml")
DEEPEST = 3  # files within files: a task names a run, which names its data and its method
ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(path: str | Path, model: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Read a YAML file into `model`.

    `extends: other.yaml` (relative to the file) is merged beneath it, one level deep. A section given as
    `section: other.yaml` is read from that file, and so are the sections of that file. Then `overrides` such as
    `training.images=5000` are applied in order; their values are read as YAML, and `section=other.yaml` (relative to
    the working directory) as that file.

    Raises:
        ConfigError: the file is missing or not a mapping, extends twice, or has an unknown or out-of-range field.
    """
    return parse_config(read_values(path, overrides), model, path)


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a file says with its overrides, as `load_config` reads it, before any field is checked."""
    values = _with_sections(Path(path))
    for override in overrides:
        apply_override(values, override)
    return values


def parse_config(values: dict[str, Any], model: type[ConfigT], path: str | Path) -> ConfigT:
    """Return the configuration that the values of a file mean.

    Raises:
        ConfigError: an unknown or out-of-range field; the message names the file.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from None


def _with_sections(path: Path, depth: int = 0) -> dict[str, Any]:
    if depth > DEEPEST:
        raise ConfigError(f"{path} is a section {DEEPEST + 1} files deep; perhaps a file names itself. Merge them.")
    values = _with_parent(path)
    files = {k: v for k, v in values.items() if isinstance(v, str) and v.endswith(FILES)}
    return values | {key: _with_sections(path.parent / name, depth + 1) for key, name in files.items()}


def _with_parent(path: Path) -> dict[str, Any]:
    child = _read_mapping(path)
    parent_name = child.pop("extends", None)
    if parent_name is None:
        return child
    parent = _read_mapping(path.parent / parent_name)
    if "extends" in parent:
        raise ConfigError(
            f"{path} extends {parent_name}, which extends another file; only one level is allowed. Merge the two files."
        )
    return merge(parent, child)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Cannot read the configuration {path}: {error.strerror}. Give the path of a readable YAML file."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}. Correct the file.") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds a {type(values).__name__}; it must hold a mapping, lines such as `field: value`."
        )
    return values


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` laid over it, mappings merged, everything else replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value of what a file says, `training.images=5000`; another form is a ConfigError."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"The override {override!r} is not of the form section.field=value. Write it like training.images=5000."
        )
    *parents, leaf = name.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"The override {override!r} goes below {parent!r}, a value, not a section. Remove what follows it."
            )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value in {override!r} is not valid YAML. Put it in quotes.") from None
    a_file = isinstance(value, str) and value.endswith(FILES)
    node[leaf] = _with_sections(Path(value)) if a_file else value


def find_shipped_file(name: str | Path) -> Path:
    """Return the path of a file or folder that is installed with the program, e.g. `configs/routes`.

    It is searched for in the source tree, in the environment, and under the prefix that the package itself is installed
    to (`pip install --user`, a distribution's /usr/local). If it is nowhere, its path in the source tree is returned.
    """
    here = Path(__file__).resolve()
    prefixes = (Path(sys.prefix), *here.parents[4:5])  # <prefix>/lib/python3.x/site-packages/pipeline/config.py
    roots = (here.parents[1], *(prefix / "share" / "nightread" for prefix in prefixes))
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


class DecodeLimits(Config):
    """Limits on what one file may use; a file that exceeds one is rejected with that limit's code."""

    file_bytes: int = Field(4 * 2**30, gt=0, description="largest file that is opened")
    decoded_bytes: int = Field(2 * 2**30, gt=0, description="largest decoded pixel array of one instance")
    memory_bytes: int = Field(6 * 2**30, gt=0, description="address space of the decode worker, above its start")
    seconds: float = Field(60.0, gt=0, description="wall time for one file")
    sequence_depth: int = Field(32, gt=0, description="deepest nesting of sequences")
    settle_seconds: float = Field(0.0, ge=0, description="a file changed more recently is still being written")


class ReviewPolicy(Config):
    """Reading list settings: how many unflagged scans are read unmarked, and time limits for people."""

    sample_share: float = Field(0.02, ge=0, le=1, description="share of unflagged scans that are listed, unmarked")
    sample_least: int = Field(5, ge=0, description="average per scoring run, but half of the flagged ones, or one")
    first_look: bool = Field(True, description="a scan opens without heatmap, until it is requested or decided")
    findings: Path | None = Field(None, description="coded findings; default: `configs/review/findings.yaml`")
    hanging: Path | None = Field(None, description="layout per route; default: `configs/review/hanging.yaml`")
    viewer_url: str | None = Field(None, description="address of a study in the site's viewer, with {study_uid}")
    viewer_blind: bool = Field(False, description="offer that link before the decision too, though a PACS may tell")
    readers_identify: bool = Field(False, description="readers, too, may see study dates and open that link")
    lease_minutes: float = Field(15.0, gt=0, description="how long a scan is reserved for the person who reads it")
    assign_hours: float = Field(12.0, gt=0, description="how long a scan assigned beforehand is reserved")
    open_scans: int = Field(5, ge=1, description="scans that one reader may have open; a further one frees the oldest")
    assigned_scans: int = Field(20, ge=1, description="scans that one reader may assign to themselves beforehand")
    idle_minutes: float = Field(30.0, gt=0, description="a log-in ends after this long without a request")
    session_hours: float = Field(12.0, gt=0, description="a log-in ends after this long in any case")
    comment_characters: int = Field(20_000, gt=0, description="longest comment, and longest finding in free text")
    region_points: int = Field(2_000, ge=3, description="most corners of a drawn region")
    password_characters: int = Field(12, ge=8, description="shortest password")
    failures_a_name: int = Field(10, ge=1, description="failed log-ins with a name in the window before it must wait")
    failures_an_address: int = Field(30, ge=1, description="failed log-ins from an address in the window, likewise")
    failure_minutes: float = Field(15.0, gt=0, description="length of that window")


class ScoringPolicy(Config):
    """Processes that share the scoring of a night; see `docs/how-to/machines.md`."""

    runner: Literal["threads", "dask", "ray", "pool"] = Field("threads", description="who scores with this process")
    workers: int = Field(1, ge=1, description="processes (with `threads`: threads) that score a night at once")
    address: str | None = Field(None, description="of the Dask scheduler or Ray cluster; default: a local one")


class Settings(Config):
    """Locations and house rules. Read from `<workspace>/settings.yaml` and `NIGHTREAD_*`."""

    workspace: Path = Field(Path("nightread-data"), description="folder that holds everything below")
    catalogue_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in the workspace")
    crosswalk_url: str | None = Field(None, description="SQLAlchemy URL of the crosswalk; default: its own SQLite file")
    store_url: str | None = Field(None, description="fsspec URL or folder of the pixel store")
    mlflow_uri: str | None = Field(None, description="MLflow tracking URI; default: SQLite in the workspace")
    database_wait_seconds: float = Field(60.0, gt=0, description="how long a writer waits for another one (SQLite)")
    site: str = Field("local", min_length=1, description="issuer of patient IDs where a file names none")
    burned_in: Literal["reject", "no-figures", "accept"] = Field(
        "no-figures", description="policy for (0028,0301) BurnedInAnnotation = YES"
    )
    routes: Path | None = Field(None, description="folder of the routes; default: the shipped `configs/routes`")
    decode: DecodeLimits = DecodeLimits()
    workers: int = Field(2, ge=1, description="decode workers of an ingest")
    scoring: ScoringPolicy = ScoringPolicy()
    review: ReviewPolicy = ReviewPolicy()

    @classmethod
    def load(cls, workspace: str | Path | None = None) -> Settings:
        """Merge defaults, `<workspace>/settings.yaml` and `NIGHTREAD_<FIELD>` variables; the last one wins.

        Raises:
            ConfigError: an unknown field or a value out of range.
        """
        folder = Path(workspace or os.environ.get("NIGHTREAD_WORKSPACE") or "nightread-data").absolute()
        file = folder / "settings.yaml"
        values = _read_mapping(file) if file.exists() else {}
        values |= {k: yaml.safe_load(v) for k in cls.model_fields if (v := os.environ.get(f"NIGHTREAD_{k.upper()}"))}
        try:
            return cls.model_validate({**values, "workspace": folder})
        except ValidationError as error:
            raise ConfigError(explain(error, str(file))) from None

    def relative(self, path: str | Path) -> str:
        """Return how a path is written down: beneath the workspace relative to it, elsewhere as it is.

        A workspace is a folder that may be copied or moved, so nothing in it names its own place.
        """
        place = Path(path)
        return place.relative_to(self.workspace).as_posix() if place.is_relative_to(self.workspace) else str(path)

    def absolute(self, text: str) -> Path:
        """Return the path that `relative` wrote down, in the workspace as it lies now."""
        return self.workspace / text

    @property
    def catalogue(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return self.catalogue_url or f"sqlite:///{self.workspace / 'catalogue.db'}"

    @property
    def crosswalk(self) -> str:
        """SQLAlchemy URL of the crosswalk (real identifiers; store it apart)."""
        return self.crosswalk_url or f"sqlite:///{self.workspace / 'identity' / 'crosswalk.db'}"

    @property
    def key_file(self) -> Path:
        """Path of the HMAC key of the pseudonyms, mode 0600."""
        return self.workspace / "identity" / "pseudonym.key"

    @property
    def store(self) -> str:
        """Folder or fsspec URL of the pixel store."""
        return self.store_url or str(self.workspace / "pixels")

    @property
    def mlflow(self) -> str:
        """MLflow tracking URI."""
        return self.mlflow_uri or f"sqlite:///{self.workspace / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_server(self) -> str | None:
        """Address of an MLflow server, which keeps the artefacts itself; None if they are in the workspace."""
        databases = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow opens by itself
        return None if (self.mlflow_uri or "sqlite").startswith(databases) else self.mlflow_uri

    @property
    def routes_folder(self) -> Path:
        """Folder of the routes: as configured, otherwise the one installed with the program."""
        return self.routes or find_shipped_file("configs/routes")

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.workspace / "runs"

    @property
    def generated(self) -> Path:
        """Folder of the generative tasks' folders."""
        return self.workspace / "generated"

    @property
    def indices(self) -> Path:
        """Folder of the indices of similar images."""
        return self.workspace / "indices"

    @property
    def inbox(self) -> Path:
        """Folder that `nightread listen` and `nightread pull` write to."""
        return self.workspace / "inbox"
