"""The interface of an action head."""

import abc

import jax
from jaxtyping import Array, Float


class Head(abc.ABC):
    """Maps `output_size` model outputs per step to a loss against actions, a sampled action, and the mode."""

    output_size: int

    @abc.abstractmethod
    def loss(self, outputs: Float[Array, "... U"], actions: Array) -> Float[Array, "..."]:
        """Per-step loss against actions (..., A) or (...,)."""

    @abc.abstractmethod
    def mode(self, outputs: Float[Array, "... U"]) -> Array:
        """The most likely action, in the environment's units."""

    @abc.abstractmethod
    def sample(self, outputs: Float[Array, "... U"], key: jax.Array, temperature: float) -> Array:
        """A sample from the predicted distribution, in the environment's units."""
