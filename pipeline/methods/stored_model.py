"""Trained models: a method with the normaliser and the volumes that it was trained on, as saved by `train`.

A model is one sealed folder (`pipeline.sealed_folder`), and its SHA-256 is its name: detectors, ensembles, latent
models and generative stages name a model, and none of them copies its weights.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

import pipeline
from pipeline.data.images.normalise import Normaliser
from pipeline.data.images.volume import VolumeConfig
from pipeline.errors import ArtefactError
from pipeline.methods.artefact import build_from_spec, load_weights, method_spec, save_weights
from pipeline.methods.base import Method
from pipeline.sealed_folder import (
    MANIFEST,
    MODEL,
    MODELS,
    WEIGHTS,
    Sealed,
    name_model,
    read_sealed,
    seal,
)

FIELDS = ("method", "normaliser", "volumes")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model was saved or loaded, and its SHA-256."""

    folder: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Model:
    """A trained method and its image format.

    Attributes:
        method: with its weights; in eval mode when it was loaded.
        normaliser: the one that it was trained with.
        volumes: how series become volumes; None where it sees single slices.
        components: the trained models that the method holds, such as the codec of a latent model, by name; saved by
            name, and never copied.
        origin: None until `save_model` or `load_model` set it. `dataclasses.replace` drops it, as other weights are
            another model.
    """

    method: Method
    normaliser: Normaliser
    volumes: VolumeConfig | None = None
    components: Mapping[str, Model] = field(default_factory=dict, compare=False)
    origin: Origin | None = field(default=None, init=False, compare=False)

    @property
    def images(self) -> dict[str, Any]:
        """JSON of the image format; models that share it can score together."""
        return images_of(self.normaliser, self.volumes)

    def at(self, folder: Path, sha256: str) -> Model:
        """Return the same model with `folder` as its origin."""
        placed = Model(self.method, self.normaliser, self.volumes, self.components)
        object.__setattr__(placed, "origin", Origin(folder, sha256))  # not an argument of __init__, see above
        return placed


def images_of(normaliser: Normaliser, volumes: VolumeConfig | None) -> dict[str, Any]:
    """Return JSON of a normaliser and of volumes."""
    return {
        "normaliser": normaliser.to_json(),
        "volumes": None if volumes is None else volumes.model_dump(mode="json"),
    }


def save_model(folder: str | Path, model: Model) -> Model:
    """Write weights.safetensors, model.json and manifest.json; return the model with its origin.

    Raises:
        ArtefactError: a component that is a trained model is missing, or was not saved itself.
    """
    place = Path(folder)
    components = _named(model, place)
    spec = {
        "versions": versions(),
        "method": method_spec(model.method),
        **model.images,
        **({MODELS: components} if components else {}),
    }
    return model.at(place, seal(place, spec, lambda part: save_weights(model.method, part)))


def _named(model: Model, folder: Path) -> dict[str, dict[str, str]]:
    """Return JSON that names the components; without them, the saved model could not be read again."""
    origins = {name: part.origin for name, part in model.components.items() if part.origin is not None}
    if missing := sorted(set(model.method.named) - origins.keys()):
        raise ArtefactError(
            f"The {', '.join(missing)} of this {model.method.config.name} must be saved before it. Save it with "
            "save_model, and give the result in Model(components=...)."
        )
    return {name: name_model(origins[name].folder, origins[name].sha256, folder) for name in model.method.named}


def load_model(folder: str | Path, sha256: str | None = None, device: Literal["cpu", "auto"] = "cpu") -> Model:
    """Read a model. Nothing in the folder is executed, and any changed byte is rejected.

    Args:
        folder: written by `save_model`, or a run folder, whose `model/` is then read.
        sha256: SHA-256 of the requested model; if given, the folder must hold exactly that one.
        device: `auto` puts the weights on a CUDA device if there is one.

    Raises:
        ArtefactError: a file or a component is missing, altered, of another format, or not the requested one.
    """
    model = load_checked(read_sealed(find_model_folder(Path(folder)), sha256))
    put_on(device, [model.method])
    return model


def load_checked(sealed: Sealed) -> Model:
    """Build a model and its components from checked folders.

    Raises:
        ArtefactError: a specification or the weights do not fit this release.
    """
    spec = sealed.spec
    if missing := [name for name in FIELDS if name not in spec]:
        raise ArtefactError(f"model.json lacks {', '.join(missing)}. Train the model again.")
    components = {name: load_checked(part) for name, part in sealed.components.items()}
    trained = {name: part.method for name, part in components.items()}
    method = load_weights(build_from_spec(spec["method"], trained), sealed.folder / WEIGHTS)
    try:
        volumes = None if spec["volumes"] is None else VolumeConfig.model_validate(spec["volumes"])
        model = Model(method, Normaliser.from_json(spec["normaliser"]), volumes, components)
    except (ValidationError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"model.json does not fit this release ({type(error).__name__}). Train the model again."
        ) from None
    return model.at(sealed.folder, sealed.sha256)


def find_model_folder(folder: Path) -> Path:
    """Return the folder that holds the model's files: `folder` itself, or `model/` in a run folder."""
    inner = folder / MODEL
    return inner if (inner / MANIFEST).is_file() and not (folder / MANIFEST).is_file() else folder


def put_on(device: Literal["cpu", "auto"], methods: list[Method]) -> None:
    """Move methods to a CUDA device if `device` is auto and there is one."""
    if device == "auto" and torch.cuda.is_available():
        for method in methods:
            method.to("cuda")


def versions() -> dict[str, str]:
    """Return the versions with which an artefact was written."""
    return {"nightread": pipeline.__version__, "torch": torch.__version__, "python": platform.python_version()}
