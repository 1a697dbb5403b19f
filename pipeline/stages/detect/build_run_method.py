"""The method of a run with new weights, and the trained models that it holds."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Restorer, Translator
from pipeline.methods.method_registry import build_method
from pipeline.methods.stored_model import Model, load_model
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder


def build_untrained(config: RunConfig, components: Mapping[str, Model]) -> Method:
    """Return the method with new weights, for the normaliser's slices or for the cubes of volumes."""
    volumes, seed = config.data.volumes, config.training.seed
    trained = {name: part.method for name, part in components.items()}
    if volumes is not None:
        method = build_method(config.method, volumes.tile, spatial_dims=3, seed=seed, trained=trained)
        config.refuse_mirrored_cubes(method.config)  # again, with the configurations of trained components
        return method
    method = build_method(config.method, config.data.normaliser.image_size, seed=seed, trained=trained)
    if config.towards is not None and not isinstance(method, Restorer | Translator):
        raise ConfigError(
            f"{config.method.name} gives no image of another domain, so it cannot learn `towards`. Choose cycle_gan, "
            "regression_unet, conditional_gan, conditional_ddpm or conditional_flow."
        )
    return method


def read_components(config: RunConfig, settings: Settings) -> dict[str, Model]:
    """Read the trained models that the method holds, such as the codec of a latent model, by their names in it."""
    named = {name: one for name, one in config.method.components().items() if one.run is not None}
    return {name: load_model(RunFolder.find(settings, str(one.run)).model, one.sha256) for name, one in named.items()}
