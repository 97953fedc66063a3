"""Soft actor-critic with automatic temperature: losses, a gradient step, and many gradient steps in one dispatch.

Haarnoja et al. 2018 (arXiv 1812.05905). Everything is float32 and a pure function of one state.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ringrl.online.adam import adam_state, adam_step
from ringrl.online.config import RewardKind, SacConfig
from ringrl.online.moments import Moments, create_moments, standardize, update_moments
from ringrl.online.networks import critic, init_mlp, sample_action
from ringrl.online.replay import Transitions
from ringrl.online.rnd import CLIP as RND_CLIP
from ringrl.online.rnd import RndState, create_rnd, rnd_step
from ringrl.types import Array, Metrics, Parameters

CLIP = 10.0  # clip in standard deviations of an observation; values beyond are outliers of an early estimate


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SacState:
    """The learner's state, which a gradient step reads and replaces."""

    actor: Parameters
    critics: Parameters  # list of two
    target_critics: Parameters
    log_temperature: jax.Array  # ()
    optimizers: dict[str, Any]  # of actor, critics and temperature
    moments: Moments  # (O,): of replayed observations
    rnd: RndState | None
    key: jax.Array  # () key
    updates: jax.Array  # () int32: gradient steps so far


def create_state(seed: int, observation_size: int, action_size: int, config: SacConfig) -> SacState:
    """Create the initial state, a function of the seed and the sizes."""
    return _fresh(jax.random.key(seed), observation_size, action_size, config)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _fresh(key: jax.Array, observation_size: int, action_size: int, config: SacConfig) -> SacState:
    actor_key, *critic_keys, rnd_key, key = jax.random.split(key, 5)
    hidden = [config.width] * config.layers
    actor = init_mlp(actor_key, (observation_size, *hidden, 2 * action_size))
    critics = [init_mlp(one, (observation_size + action_size, *hidden, 1)) for one in critic_keys]
    log_temperature = jnp.log(jnp.float32(config.initial_temperature))
    return SacState(
        actor=actor,
        critics=critics,
        target_critics=jax.tree.map(jnp.copy, critics),  # copied: a donated state may not hold one buffer twice
        log_temperature=log_temperature,
        optimizers={
            "actor": adam_state(actor),
            "critics": adam_state(critics),
            "temperature": adam_state(log_temperature),
        },
        moments=create_moments((observation_size,)),
        rnd=create_rnd(rnd_key, observation_size, config) if config.reward == RewardKind.rnd else None,
        key=key,
        updates=jnp.zeros((), jnp.int32),
    )


def target_values(state: SacState, batch: Transitions, key: jax.Array, config: SacConfig) -> jax.Array:
    """r + discount (min Q'(s', a') - temperature log p(a'|s')), (B,); r alone if the episode terminated."""
    actions, log_density = sample_action(state.actor, batch.next_observations, key)
    values = [critic(params, batch.next_observations, actions) for params in state.target_critics]
    following = jnp.minimum(*values) - jnp.exp(state.log_temperature) * log_density
    return jnp.asarray(batch.rewards) + config.discount * (1.0 - batch.terminated) * following


def critic_loss(critics: Parameters, batch: Transitions, targets: jax.Array) -> jax.Array:
    """Half the mean squared error against `targets` (B,), summed over both critics."""
    errors = [critic(params, batch.observations, batch.actions) - targets for params in critics]
    return sum((0.5 * jnp.mean(error**2) for error in errors), start=jnp.float32(0.0))


def actor_loss(
    actor: Parameters, critics: Parameters, temperature: jax.Array, observations: Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean of temperature log p(a|s) - min Q(s, a) over fresh actions, and log p(a|s) (B,)."""
    actions, log_density = sample_action(actor, observations, key)
    values = jnp.minimum(*[critic(params, observations, actions) for params in critics])
    return jnp.mean(temperature * log_density - values), log_density


def temperature_loss(log_temperature: jax.Array, log_density: jax.Array, target_entropy: float) -> jax.Array:
    """Loss of the temperature, which decreases while the entropy is above its target and else increases."""
    surplus = jax.lax.stop_gradient(-log_density.mean() - target_entropy)
    return jnp.exp(log_temperature) * surplus


def gradient_step(state: SacState, batch: Transitions, config: SacConfig) -> tuple[SacState, Metrics]:
    """One update of critics, actor, temperature and targets, in this order, on raw transitions (B, ...)."""
    key, target_key, actor_key = jax.random.split(state.key, 3)
    optimizers, descend = {}, functools.partial(adam_step, learning_rate=config.learning_rate)
    moments = update_moments(state.moments, batch.observations)
    rnd, rewards = state.rnd, batch.rewards
    if rnd is not None:
        rnd, rewards = rnd_step(rnd, standardize(moments, batch.next_observations, RND_CLIP), config)
    batch = batch._replace(
        observations=standardize(moments, batch.observations, CLIP),
        next_observations=standardize(moments, batch.next_observations, CLIP),
        rewards=rewards,
    )

    targets = target_values(state, batch, target_key, config)
    loss_of_critics, gradients = jax.value_and_grad(critic_loss)(state.critics, batch, targets)
    critics, optimizers["critics"] = descend(state.critics, gradients, state.optimizers["critics"])

    temperature = jnp.exp(state.log_temperature)
    (loss_of_actor, log_density), gradients = jax.value_and_grad(actor_loss, has_aux=True)(
        state.actor, critics, temperature, batch.observations, actor_key
    )
    actor, optimizers["actor"] = descend(state.actor, gradients, state.optimizers["actor"])

    target_entropy = config.target_entropy * batch.actions.shape[-1]
    gradients = jax.grad(temperature_loss)(state.log_temperature, log_density, target_entropy)
    log_temperature, optimizers["temperature"] = descend(
        state.log_temperature, gradients, state.optimizers["temperature"]
    )

    metrics = {
        "critic_loss": loss_of_critics,
        "actor_loss": loss_of_actor,
        "entropy": -log_density.mean(),
        "temperature": temperature,
        "reward": rewards.mean(),
    }
    new = SacState(
        actor=actor,
        critics=critics,
        target_critics=optax.incremental_update(critics, state.target_critics, config.target_rate),
        log_temperature=log_temperature,
        optimizers=optimizers,
        moments=moments,
        rnd=rnd,
        key=key,
        updates=state.updates + 1,
    )
    return new, metrics


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def update(state: SacState, batches: Transitions, config: SacConfig) -> tuple[SacState, Metrics]:
    """One gradient step for each of k batches (k, B, ...), and the means of their metrics.

    The given state is donated.
    """
    state, metrics = jax.lax.scan(lambda carry, batch: gradient_step(carry, batch, config), state, batches)
    return state, jax.tree.map(lambda values: values.mean(axis=0), metrics)
