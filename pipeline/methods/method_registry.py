"""Registry of methods: the union of their configurations. A method exists only if it is listed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.invalid_values import explain
from pipeline.methods.ae import AeConfig
from pipeline.methods.ae_u import AeUConfig
from pipeline.methods.alpha_gan import AlphaGanConfig
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.code_surprise import CodeSurpriseConfig
from pipeline.methods.cold_diffusion import ColdDiffusionConfig
from pipeline.methods.conditional_ddpm import ConditionalDdpmConfig
from pipeline.methods.conditional_flow import ConditionalFlowConfig
from pipeline.methods.conditional_gan import ConditionalGanConfig
from pipeline.methods.conditional_vae import ConditionalVaeConfig
from pipeline.methods.conditioned_ddpm import ConditionedDdpmConfig
from pipeline.methods.controlnet import ControlnetConfig
from pipeline.methods.cycle_gan import CycleGanConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.dcgan import DcganConfig
from pipeline.methods.ddpm import DdpmConfig
from pipeline.methods.diff_ae import DiffAeConfig
from pipeline.methods.dsr import DsrConfig
from pipeline.methods.f_anogan import FAnoGanConfig
from pipeline.methods.feature_ae import FeatureAeConfig
from pipeline.methods.gated_dae import GatedDaeConfig
from pipeline.methods.gaussian_features import GaussianFeaturesConfig
from pipeline.methods.infogan import InfoGanConfig
from pipeline.methods.knn_features import KnnFeaturesConfig
from pipeline.methods.ladder_vae import LadderVaeConfig
from pipeline.methods.ladder_vq import LadderVqConfig
from pipeline.methods.latent_diffusion import LatentDiffusionConfig
from pipeline.methods.learned_residual import LearnedResidualConfig
from pipeline.methods.multiscale_vq import MultiscaleVqConfig
from pipeline.methods.pca import PcaConfig
from pipeline.methods.rectified_flow import RectifiedFlowConfig
from pipeline.methods.regression_unet import RegressionUnetConfig
from pipeline.methods.stylegan2 import StyleGan2Config
from pipeline.methods.synthetic_lesion import SyntheticLesionConfig
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.methods.vae import VaeConfig
from pipeline.methods.vampprior import VampPriorConfig
from pipeline.methods.var import VarConfig
from pipeline.methods.vq_vae import VqVaeConfig
from pipeline.methods.vq_vae2 import VqVae2Config
from pipeline.methods.vqgan import VqganConfig
from pipeline.methods.wgan import WganConfig
from pipeline.methods.wgan_gp import WganGpConfig

PROBE = 64  # pixels; every component can be built for this size

AnyMethodConfig = Annotated[
    AeConfig
    | AeUConfig
    | VaeConfig
    | ConditionalVaeConfig
    | VampPriorConfig
    | DaeConfig
    | GatedDaeConfig
    | LadderVaeConfig
    | LadderVqConfig
    | ColdDiffusionConfig
    | ConditionedDdpmConfig
    | RegressionUnetConfig
    | ConditionalDdpmConfig
    | ConditionalFlowConfig
    | ConditionalGanConfig
    | CycleGanConfig
    | VqVaeConfig
    | VqVae2Config
    | VqganConfig
    | MultiscaleVqConfig
    | VarConfig
    | DdpmConfig
    | ControlnetConfig
    | LatentDiffusionConfig
    | RectifiedFlowConfig
    | TextToImageConfig
    | DiffAeConfig
    | SyntheticLesionConfig
    | LearnedResidualConfig
    | DsrConfig
    | CodeSurpriseConfig
    | KnnFeaturesConfig
    | GaussianFeaturesConfig
    | FeatureAeConfig
    | FAnoGanConfig
    | AlphaGanConfig
    | StyleGan2Config
    | DcganConfig
    | WganConfig
    | WganGpConfig
    | InfoGanConfig
    | PcaConfig,
    Field(discriminator="name"),
]

METHODS: dict[str, type[MethodConfig]] = {
    config.model_fields["name"].default: config for config in get_args(get_args(AnyMethodConfig)[0])
}


def parse_method(values: dict[str, Any]) -> MethodConfig:
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


def sees_the_other_side(config: MethodConfig) -> bool:
    """Return whether the method, or a component of it, looks at the mirrored image.

    A trained component has its own configuration here only after the method is built (`name_component`).
    """
    parts = (parse_method(one.method) for one in config.components().values())
    return getattr(config, "mirrored", False) or any(map(sees_the_other_side, parts))


def build_method(
    config: MethodConfig,
    image_size: int,
    channels: int = 1,
    spatial_dims: int = 2,
    *,
    seed: int = 0,
    trained: Mapping[str, Method] | None = None,
) -> Method:
    """Return the method with weights drawn from `seed`, and its components, if it has some.

    Args:
        config: the method's configuration.
        image_size, channels, spatial_dims: of the images.
        seed: of the weights; those of its components are drawn from it as well.
        trained: the components that the configuration takes from trained models, by name; the others are built.

    Raises:
        ConfigError: an image size, channel count or dimension that a network does not support, or a trained component
            is missing or does not fit.
    """
    read = dict(trained or {})
    fresh = {name: parse_method(one.method) for name, one in config.components().items() if not one.trained}
    seeds = config.component_seeds(seed)
    try:
        built = {
            name: build_method(one, image_size, channels, spatial_dims, seed=seeds[name]) for name, one in fresh.items()
        }
    except ConfigError:
        _refuse_size(config, fresh, image_size, channels, spatial_dims)
        raise
    return config.build(image_size, channels, spatial_dims, seed=seed, components=built | read)


def _refuse_size(
    config: MethodConfig, fresh: Mapping[str, MethodConfig], image_size: int, channels: int, spatial_dims: int
) -> None:
    """Raise an error naming sizes that suit the method and its components together, if these can be built at all."""
    try:
        probes = {name: build_method(one, PROBE, channels, spatial_dims) for name, one in fresh.items()}
    except ConfigError:
        return
    config.check_size(image_size, probes)
