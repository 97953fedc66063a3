"""Random network distillation: the novelty of an observation is a network's error in predicting its random features.

Burda et al. 2018 (arXiv 1810.12894), learned from replayed steps as for unsupervised pre-training in URLB (Laskin et
al. 2021, arXiv 2110.15191).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ringrl.online.adam import adam_state, adam_step
from ringrl.online.config import SacConfig
from ringrl.online.moments import Moments, create_moments, update_moments
from ringrl.online.networks import init_mlp, mlp
from ringrl.types import Array, Parameters

CLIP = 5.0  # standard deviations of an observation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RndState:
    """A fixed random network, a network that learns to predict its output, and running moments of the errors."""

    target: Parameters
    predictor: Parameters
    optimizer: Any
    errors: Moments  # ()


def create_rnd(key: jax.Array, observation_size: int, config: SacConfig) -> RndState:
    """Create both networks, with two hidden layers of `rnd_width` and `rnd_features` outputs."""
    sizes = (observation_size, config.rnd_width, config.rnd_width, config.rnd_features)
    target_key, predictor_key = jax.random.split(key)
    # Kernels of variance 2 / in keep the variance of a ReLU network's output equal to that of its input.
    target, predictor = init_mlp(target_key, sizes, scale=2.0), init_mlp(predictor_key, sizes, scale=2.0)
    return RndState(target, predictor, adam_state(predictor), create_moments(()))


def prediction_errors(predictor: Parameters, target: Parameters, observations: Array) -> jax.Array:
    """Mean squared errors (B,) of the prediction for standardized observations (B, O)."""
    return jnp.mean((mlp(predictor, observations) - mlp(target, observations)) ** 2, axis=-1)


def rnd_step(state: RndState, observations: Array, config: SacConfig) -> tuple[RndState, jax.Array]:
    """One step of the predictor, and the bonus (B,): its errors before the step, divided by their running deviation."""

    def loss(predictor: Parameters) -> tuple[jax.Array, jax.Array]:
        errors = prediction_errors(predictor, state.target, observations)
        return errors.mean(), errors

    gradients, errors = jax.grad(loss, has_aux=True)(state.predictor)
    predictor, optimizer = adam_step(state.predictor, gradients, state.optimizer, config.rnd_learning_rate)
    moments = update_moments(state.errors, errors)
    return RndState(state.target, predictor, optimizer, moments), errors / moments.std
