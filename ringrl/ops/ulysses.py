"""Ulysses (Jacobs et al. 2023, arXiv 2309.14509): devices trade their share of tokens for a share of heads."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.errors import RingRLError


def check_heads(heads: int, devices: int) -> None:
    """Raises RingRLError where query heads cannot be dealt evenly."""
    if heads % devices:
        raise RingRLError(
            f"Ulysses deals query heads to devices, and {heads} heads do not divide among {devices}: "
            "use fewer head devices (mesh.head), more heads (model.heads), or attention.strategy=ring."
        )


def tokens_to_heads(x: Float[Array, "B S H D"], axes: tuple[str, ...], devices: int) -> Float[Array, "B nS H/n D"]:
    """All tokens of a share of the heads, from a share of the tokens with all heads.

    Key heads that are fewer than the devices, or do not divide among them, are repeated as often as needed: each
    device then holds just those that its query heads read.
    """
    if devices == 1:
        return x
    x = jnp.repeat(x, devices // math.gcd(x.shape[2], devices), axis=2)
    return jax.lax.all_to_all(x, axes, split_axis=2, concat_axis=1, tiled=True)


def heads_to_tokens(x: Float[Array, "B nS H/n D"], axes: tuple[str, ...], devices: int) -> Float[Array, "B S H D"]:
    """The inverse of `tokens_to_heads` for query heads."""
    return x if devices == 1 else jax.lax.all_to_all(x, axes, split_axis=1, concat_axis=2, tiled=True)
