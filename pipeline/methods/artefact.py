"""Methods as files: a JSON specification that rebuilds a method, and its weights as safetensors.

The weights of a component that is a trained model are in that model's file only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import ArtefactError
from pipeline.methods.base import Method
from pipeline.methods.method_registry import build_method, parse_method
from pipeline.nn.backbone import weights_follow


def method_spec(method: Method) -> dict[str, Any]:
    """Return JSON from which `build_from_spec` rebuilds the method (without weights)."""
    return {
        "config": method.config.model_dump(mode="json"),
        "image_size": method.image_size,
        "channels": method.channels,
        "spatial_dims": method.spatial_dims,
    }


def build_from_spec(spec: dict[str, Any], trained: Mapping[str, Method] | None = None) -> Method:
    """Build the method that `spec` describes, with untrained weights; `trained` are its components of other models.

    Raises:
        ArtefactError: a part of the specification is missing or unknown.
        ConfigError: the method's own configuration is not valid.
    """
    try:
        config, sizes = spec["config"], {k: int(spec[k]) for k in ("image_size", "channels", "spatial_dims")}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"The method's specification lacks a valid field ({error!r}). Train it again.") from None
    with weights_follow():  # including frozen networks, whose weights are in the artefact
        return build_method(parse_method(config), **sizes, trained=trained)


def save_weights(method: Method, path: Path) -> None:
    """Write the method's own parameters and buffers as safetensors."""
    save_file({name: value.detach().cpu().contiguous() for name, value in method.own_state().items()}, path)


def load_weights(method: Method, path: Path) -> Method:
    """Read its own weights into `method` and return it, in eval mode.

    Raises:
        ArtefactError: the file is missing or damaged, or its tensors are not those of this method.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(
            f"The weights of {method.config.name} cannot be read ({type(error).__name__}). Restore the file, or train "
            "again."
        ) from None
    copy_tensors(method.own_state(), tensors, f"the weights of {method.config.name}")
    return method.eval()


def copy_tensors(targets: dict[str, Tensor], sources: dict[str, Tensor], what: str) -> None:
    """Copy values into existing tensors, so that their memory format and device do not change.

    Raises:
        ArtefactError: names or shapes differ.
    """
    if odd := sorted(targets.keys() ^ sources.keys()):
        raise ArtefactError(f"In {what}, {len(odd)} tensors are missing or unknown, first {odd[0]!r}. Train it again.")
    for name, target in targets.items():
        if target.shape != sources[name].shape or target.dtype != sources[name].dtype:
            raise ArtefactError(
                f"In {what}, {name!r} is {list(sources[name].shape)} {sources[name].dtype} and "
                f"{list(target.shape)} {target.dtype} is needed. Use weights that match the configuration."
            )
    for name, target in targets.items():
        target.detach().copy_(sources[name])
