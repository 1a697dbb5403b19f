"""Typed configuration: pydantic models from YAML, one level of `extends:`, `a.b=c` overrides, and the settings."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration model: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal configurations have equal fingerprints."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _zone_name(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is no IANA time zone such as Europe/Berlin") from None
    return name


ZoneName = Annotated[str, AfterValidator(_zone_name)]
FILES = (".yaml", ".yml")
ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(path: str | Path, model: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Read a YAML file into `model`.

    `extends: other.yaml` (relative to the file) is merged beneath it, one level deep; a section given as
    `section: other.yaml` is read from that file; `overrides` such as `training.images=5000` are laid on top in their
    order, their values read as YAML, and `section=other.yaml` (relative to where the command runs) as that file.

    Raises:
        ConfigError: the file is missing or no mapping, extends twice, or a field is unknown or out of range.
    """
    values = _with_sections(Path(path))
    for override in overrides:
        _apply(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from None


def _with_sections(path: Path) -> dict[str, Any]:
    values = _with_parent(path)
    files = {k: v for k, v in values.items() if isinstance(v, str) and v.endswith(FILES)}
    return values | {key: _with_parent(path.parent / name) for key, name in files.items()}


def _with_parent(path: Path) -> dict[str, Any]:
    child = _read_mapping(path)
    parent_name = child.pop("extends", None)
    if parent_name is None:
        return child
    parent = _read_mapping(path.parent / parent_name)
    if "extends" in parent:
        raise ConfigError(f"{path} extends {parent_name}, which extends again; one level is allowed. Merge the two.")
    return merge(parent, child)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Cannot read the configuration {path}: {error.strerror}. Give an existing YAML file."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a mapping of fields is needed.")
    return values


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` laid over it, mappings merged, everything else replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"The override {override!r} is not of the form section.field=value.")
    *parents, leaf = name.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"The override {override!r} goes below {parent!r}, which is a value, not a section.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value of the override {override!r} is not valid YAML. Quote it, or close it.") from None
    a_file = not parents and isinstance(value, str) and value.endswith(FILES)
    node[leaf] = _with_parent(Path(value)) if a_file else value


def explain(error: ValidationError, what: str) -> str:
    """Return one line for each field of `what` that does not fit: where, why, and what was given."""
    lines = [f"{what} does not fit:"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(top level)"
        lines.append(f"  {where}: {item['msg']} (got {item['input']!r:.80})")
    return "\n".join(lines)


def shipped_file(name: str | Path) -> Path:
    """Return where a file or folder lies that came with the program, e.g. `configs/routes`.

    It is looked for in the source tree, in the environment, and under the prefix that the package itself was installed
    to (`pip install --user`, a distribution's /usr/local); found nowhere, its place in the source tree is returned.
    """
    here = Path(__file__).resolve()
    prefixes = (Path(sys.prefix), *here.parents[4:5])  # <prefix>/lib/python3.x/site-packages/pipeline/config.py
    roots = (here.parents[1], *(prefix / "share" / "nightread" for prefix in prefixes))
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


class DecodeLimits(Config):
    """What one file may cost; beyond it the file is rejected with the code of the limit that it broke."""

    file_bytes: int = Field(4 * 2**30, gt=0, description="largest file that is opened")
    decoded_bytes: int = Field(2 * 2**30, gt=0, description="largest decoded pixel array of one instance")
    memory_bytes: int = Field(6 * 2**30, gt=0, description="address space of the decode worker, above its start")
    seconds: float = Field(60.0, gt=0, description="wall time for one file")
    sequence_depth: int = Field(32, gt=0, description="deepest nesting of sequences")
    settle_seconds: float = Field(
        0.0, ge=0, description="a file changed within this time counts as still being written"
    )


class ReviewPolicy(Config):
    """The reading list: how many unflagged scans are read unmarked, and how long people may take."""

    sample_share: float = Field(
        0.02, ge=0, le=1, description="of a scoring run's unflagged scans that enter the list, unmarked"
    )
    sample_least: int = Field(5, ge=0, description="at least so many a scoring run, all where there are fewer")
    findings: Path | None = Field(
        None, description="coded findings; default the shipped `configs/review/findings.yaml`"
    )
    lease_minutes: float = Field(15.0, gt=0, description="a scan that somebody reads is kept for them so long")
    assign_hours: float = Field(12.0, gt=0, description="a scan that is assigned beforehand is kept so long")
    idle_minutes: float = Field(30.0, gt=0, description="a log-in ends when nothing was asked for so long")
    session_hours: float = Field(12.0, gt=0, description="a log-in ends after so long in any case")
    comment_characters: int = Field(20_000, gt=0, description="longest comment, and longest finding in free text")
    region_points: int = Field(2_000, ge=3, description="most corners of a drawn region")
    password_characters: int = Field(12, ge=8, description="shortest password")
    failures_a_name: int = Field(10, ge=1, description="failed log-ins of one name within the window, then wait")
    failures_an_address: int = Field(
        30, ge=1, description="failed log-ins from one address within the window, then wait"
    )
    failure_minutes: float = Field(15.0, gt=0, description="that window")


class Settings(Config):
    """Where things are and what the house rules are. Read from `<workspace>/settings.yaml` and `NIGHTREAD_*`."""

    workspace: Path = Field(Path("nightread-data"), description="folder that holds everything below")
    catalogue_url: str | None = Field(None, description="SQLAlchemy URL; default SQLite in the workspace")
    crosswalk_url: str | None = Field(None, description="SQLAlchemy URL of the crosswalk; default its own SQLite file")
    store_url: str | None = Field(None, description="fsspec URL or folder of the pixel store")
    mlflow_uri: str | None = Field(None, description="MLflow tracking URI; default SQLite in the workspace")
    site: str = Field("local", min_length=1, description="issuer used where a file names none")
    burned_in: Literal["reject", "no-figures", "accept"] = Field(
        "no-figures", description="policy for (0028,0301) BurnedInAnnotation = YES"
    )
    routes: Path | None = Field(None, description="folder of the routes; default the shipped `configs/routes`")
    decode: DecodeLimits = DecodeLimits()
    workers: int = Field(2, ge=1, description="decode workers of an ingest")
    review: ReviewPolicy = ReviewPolicy()

    @classmethod
    def load(cls, workspace: str | Path | None = None) -> Settings:
        """Merge defaults, `<workspace>/settings.yaml` and `NIGHTREAD_<FIELD>` variables, the last winning.

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

    @property
    def catalogue(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return self.catalogue_url or f"sqlite:///{self.workspace / 'catalogue.db'}"

    @property
    def crosswalk(self) -> str:
        """SQLAlchemy URL of the crosswalk (real identifiers; keep it apart)."""
        return self.crosswalk_url or f"sqlite:///{self.workspace / 'identity' / 'crosswalk.db'}"

    @property
    def key_file(self) -> Path:
        """The HMAC key of the pseudonyms, mode 0600."""
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
    def routes_folder(self) -> Path:
        """Folder of the routes: as set, else the one that came with the program."""
        return self.routes or shipped_file("configs/routes")

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.workspace / "runs"

    @property
    def inbox(self) -> Path:
        """Folder that `nightread listen` and `nightread pull` write to."""
        return self.workspace / "inbox"
