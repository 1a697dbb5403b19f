"""Registry of methods: the union of their configurations. A method exists only if it is listed here.

`load_model` and `save_model` are the doors to a trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, ValidationError

from pipeline.config import explain
from pipeline.errors import ConfigError
from pipeline.methods.ae import AeConfig
from pipeline.methods.ae_u import AeUConfig
from pipeline.methods.alpha_gan import AlphaGanConfig
from pipeline.methods.base import MethodConfig
from pipeline.methods.conditional_vae import ConditionalVaeConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.ddpm import DdpmConfig
from pipeline.methods.diff_ae import DiffAeConfig
from pipeline.methods.f_anogan import FAnoGanConfig
from pipeline.methods.feature_ae import FeatureAeConfig
from pipeline.methods.gated_dae import GatedDaeConfig
from pipeline.methods.knn_features import KnnFeaturesConfig
from pipeline.methods.latent_diffusion import LatentDiffusionConfig
from pipeline.methods.synthetic_lesion import SyntheticLesionConfig
from pipeline.methods.vae import VaeConfig
from pipeline.methods.vampprior import VampPriorConfig
from pipeline.methods.vq_vae import VqVaeConfig
from pipeline.methods.vq_vae2 import VqVae2Config
from pipeline.methods.vqgan import VqganConfig

if TYPE_CHECKING:
    from pipeline.methods.stored_model import Model, load_model, save_model

__all__ = ["METHODS", "AnyMethodConfig", "Model", "load_model", "method_config", "save_model"]

AnyMethodConfig = Annotated[
    AeConfig
    | AeUConfig
    | VaeConfig
    | ConditionalVaeConfig
    | VampPriorConfig
    | DaeConfig
    | GatedDaeConfig
    | VqVaeConfig
    | VqVae2Config
    | VqganConfig
    | DdpmConfig
    | LatentDiffusionConfig
    | DiffAeConfig
    | SyntheticLesionConfig
    | KnnFeaturesConfig
    | FeatureAeConfig
    | FAnoGanConfig
    | AlphaGanConfig,
    Field(discriminator="name"),
]

METHODS: dict[str, type[MethodConfig]] = {
    config.model_fields["name"].default: config for config in get_args(get_args(AnyMethodConfig)[0])
}


def method_config(values: dict[str, Any]) -> MethodConfig:
    """Return the configuration that `values["name"]` names.

    Raises:
        ConfigError: an unknown name or field, or a value out of range.
    """
    name = values.get("name")
    if name not in METHODS:
        raise ConfigError(f"There is no method {name!r}. Choose one of {', '.join(METHODS)}.")
    try:
        return METHODS[name].model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, f"The configuration of {name}")) from None


def __getattr__(name: str) -> Any:
    """Import the doors on demand: what they build with imports this registry."""
    if name not in ("Model", "load_model", "save_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.methods import stored_model

    return getattr(stored_model, name)
