"""Base of methods that hold other methods, which learn first, each in phases of its own, or are trained models."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method, Phase
from pipeline.methods.component import ComponentConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class Composite(Method):
    """A method with components: their phases come first and use their own losses; `own_loss` is that of the others."""

    def hold(
        self, name: str, component: Method, choice: ComponentConfig, share: float
    ) -> tuple[tuple[Phase, ...], float]:
        """Take a component as the submodule `name`; return its phases, and the share of the training that they end at.

        A trained model is frozen and only named: it has no phases, and the share is 0. So is one without parameters
        that learn.

        Args:
            name: the component's name in `config.components()`.
            component: the method.
            choice: its configuration here.
            share: share of the training that its phases take.
        """
        setattr(self, name, component)
        if choice.trained:
            self.named += (name,)
            component.requires_grad_(False)
        learns = any(parameter.requires_grad for parameter in component.parameters())
        end = share if learns and component.phases else 0.0
        return component.phases_within(name, end), end

    def own_loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the named terms of a phase that no component owns; the loop differentiates "total"."""
        raise NotImplementedError

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the component's own terms in its phases, else `own_loss`."""
        part, own = self._owner(phase)
        return self.own_loss(batch, phase, rng) if part is None else part.loss(batch, own, rng)

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the component's own validation terms in its phases, else `own_loss`."""
        part, own = self._owner(phase)
        return self.own_loss(batch, phase, rng) if part is None else part.validation(batch, own, rng)

    def after_step(self, phase: str) -> None:
        """Run the component's own update after its steps."""
        part, own = self._owner(phase)
        if part is not None:
            part.after_step(own)

    def _owner(self, phase: str) -> tuple[Method | None, str]:
        """Return the component whose phase this is, and the phase's name there; None for a phase of this method."""
        for name in self.config.components():
            if phase.startswith(f"{name}_"):
                return cast(Method, self.get_submodule(name)), phase.removeprefix(f"{name}_")
        return None, phase


def require_same_grid(role: str, component: Method, sizes: tuple[int, int, int]) -> None:
    """Check that a component takes images of the method that holds it, whose (size, channels, dimensions) are `sizes`.

    Raises:
        ConfigError: it does not; the message names the component, both sizes and its role.
    """
    if sizes != (actual := (component.image_size, component.channels, component.spatial_dims)):
        raise ConfigError(
            f"The {role} {component.config.name} was trained on images of (size, channels, dimensions) {actual}, but "
            f"{sizes} are needed. Use the same normaliser, or train a {role} for this one."
        )
