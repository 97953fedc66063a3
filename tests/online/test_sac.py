"""The update against a slow reference: losses in plain numpy, gradients by finite differences, Adam by hand."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from ringrl.online import SacConfig, SacState, Transitions, create_state, update
from ringrl.online.sac import target_values, temperature_loss

pytestmark = pytest.mark.simulators

O, A, B = 2, 1, 32  # noqa: E741


def batches(seed: int = 0) -> Transitions:
    """Two batches of steps, a third of which terminate."""
    rng = np.random.default_rng(seed)
    normal = functools.partial(rng.normal, size=(2, B, O))
    return Transitions(
        observations=(3.0 * normal() + [5.0, 0.0]).astype(np.float32),
        actions=rng.uniform(-1, 1, (2, B, A)).astype(np.float32),
        rewards=rng.normal(size=(2, B)).astype(np.float32),
        terminated=(rng.uniform(size=(2, B)) < 0.33).astype(np.float32),
        next_observations=(3.0 * normal() + [5.0, 0.0]).astype(np.float32),
    )


def fresh(config: SacConfig) -> SacState:
    return create_state(0, O, A, config)


# The reference, in float64.


def forward(layers, x):
    for layer in layers[:-1]:
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]


def sampled(actor, observations, noise):
    mean, raw = np.split(forward(actor, observations), 2, axis=-1)
    log_std = -5.0 + 3.5 * (np.tanh(raw) + 1.0)
    actions = np.tanh(mean + np.exp(log_std) * noise)
    density = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi) - log_std - np.log(1.0 - actions**2)
    return actions, density.sum(axis=-1)


def q(critic, observations, actions):
    return forward(critic, np.concatenate([observations, actions], axis=-1))[:, 0]


def numeric_gradient(loss, params):
    """Central differences with respect to every number of a pytree."""
    leaves, structure = jax.tree.flatten(params)
    gradients = []
    for leaf in leaves:
        slope = np.zeros_like(leaf)
        for place in np.ndindex(leaf.shape):
            kept, sides = leaf[place], []
            for side in (1e-6, -1e-6):
                leaf[place] = kept + side
                sides.append(loss(params))
            leaf[place] = kept
            slope[place] = (sides[0] - sides[1]) / 2e-6
        gradients.append(slope)
    return jax.tree.unflatten(structure, gradients)


class Adam:
    def __init__(self, params, rate):
        self.mean = jax.tree.map(np.zeros_like, params)
        self.square = jax.tree.map(np.zeros_like, params)
        self.count, self.rate = 0, rate

    def step(self, params, gradients):
        self.count += 1
        self.mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, self.mean, gradients)
        self.square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g**2, self.square, gradients)
        one, two = 1 - 0.9**self.count, 1 - 0.999**self.count
        return jax.tree.map(
            lambda p, m, s: p - self.rate * (m / one) / (np.sqrt(s / two) + 1e-8), params, self.mean, self.square
        )


def polyak(old, new, rate):
    return jax.tree.map(lambda old, new: (1.0 - rate) * old + rate * new, old, new)


def reference(state: SacState, data: Transitions, config: SacConfig) -> dict:
    """Two gradient steps."""
    double = functools.partial(jax.tree.map, lambda x: np.array(x, np.float64))
    actor, targets = double(state.actor), double(state.target_critics)
    critics: Any = double(state.critics)
    log_temperature, key = np.array(state.log_temperature, np.float64), state.key
    adams = {
        "actor": Adam(actor, config.learning_rate),
        "critics": Adam(critics, config.learning_rate),
        "temperature": Adam(log_temperature, config.learning_rate),
    }
    losses = []
    for index in range(2):
        batch = Transitions(*(np.array(column[index], np.float64) for column in data))
        key, *two = jax.random.split(key, 3)
        noises = [np.array(jax.random.normal(one, (B, A)), np.float64) for one in two]
        replayed = data.observations[: index + 1].reshape(-1, O).astype(np.float64)
        now, after = (
            np.clip((x - replayed.mean(axis=0)) / replayed.std(axis=0), -10.0, 10.0)
            for x in (batch.observations, batch.next_observations)
        )
        temperature = np.exp(log_temperature)

        actions, density = sampled(actor, after, noises[0])
        following = np.minimum(*(q(one, after, actions) for one in targets)) - temperature * density
        wanted = np.where(batch.terminated == 1, batch.rewards, batch.rewards + config.discount * following)

        def of_critics(params, now=now, wanted=wanted, taken=batch.actions) -> float:
            return 0.5 * sum(np.mean((q(one, now, taken) - wanted) ** 2) for one in params)

        losses.append(of_critics(critics))
        critics = adams["critics"].step(critics, numeric_gradient(of_critics, critics))

        def of_actor(params, now=now, critics=critics, heat=temperature, noise=noises[1]) -> float:
            actions, density = sampled(params, now, noise)
            return np.mean(heat * density - np.minimum(*(q(one, now, actions) for one in critics)))

        _, density = sampled(actor, now, noises[1])
        actor = adams["actor"].step(actor, numeric_gradient(of_actor, actor))
        slope = temperature * np.mean(-density - config.target_entropy * A)
        log_temperature = adams["temperature"].step(log_temperature, slope)
        targets = polyak(targets, critics, config.target_rate)
    return {
        "actor": actor,
        "critics": critics,
        "target_critics": targets,
        "log_temperature": log_temperature,
        "critic_loss": np.mean(losses),
        "gradients": {name: adam.mean for name, adam in adams.items()},
    }


def assert_close(found, expected, **tolerance) -> None:
    for (path, value), other in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, other, err_msg=jax.tree_util.keystr(path), **tolerance)


def test_two_updates_are_the_reference(config: SacConfig) -> None:
    expected = reference(fresh(config), batches(), config)
    state, metrics = update(fresh(config), batches(), config)
    for name in ("actor", "critics", "target_critics", "log_temperature"):
        assert_close(getattr(state, name), expected[name], atol=2e-4)
    for name, gradients in expected["gradients"].items():
        assert_close(state.optimizers[name][0].mu, gradients, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(metrics["critic_loss"], expected["critic_loss"], rtol=1e-4)
    assert int(state.updates) == 2
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves([state.actor, state.critics, state.moments]))


def test_fresh_networks_differ_and_their_targets_do_not(config: SacConfig) -> None:
    state = fresh(config)
    assert_close(state.critics, state.target_critics, rtol=0)
    first, second = (np.array(params[0]["kernel"]) for params in state.critics)
    assert 0.5 < np.abs(first).max() * np.sqrt(O + A) <= 1.0
    assert (first != second).all()
    assert state.rnd is None


def test_the_same_state_and_batches_give_the_same_bits(config: SacConfig) -> None:
    first, second = (update(fresh(config), batches(), config)[0] for _ in range(2))
    assert_close(first.actor, second.actor, rtol=0)
    assert_close(first.critics, second.critics, rtol=0)


def test_the_actor_does_not_pull_on_the_critics(config: SacConfig) -> None:
    """Where all steps terminate nothing but the rewards reaches the critics, however the actor fares."""
    data = batches()._replace(terminated=np.ones((2, B), np.float32))
    cold = fresh(config)
    hot = dataclasses.replace(fresh(config), log_temperature=cold.log_temperature + 5.0)
    cold, hot = (update(state, data, config)[0] for state in (cold, hot))
    assert_close(cold.critics, hot.critics, rtol=0)
    kernels = [np.array(state.actor[0]["kernel"]) for state in (cold, hot)]
    assert not np.allclose(*kernels, atol=1e-3)


def test_truncated_steps_are_bootstrapped_and_terminated_ones_are_not(config: SacConfig) -> None:
    state = fresh(config)
    batch = Transitions(*(column[0] for column in batches()))
    targets = np.array(jax.jit(functools.partial(target_values, config=config))(state, batch, jax.random.key(3)))
    ended = batch.terminated == 1
    np.testing.assert_array_equal(targets[ended], batch.rewards[ended])
    assert (np.abs(targets - batch.rewards)[~ended] > 1e-3).all()


def test_the_temperature_seeks_the_target_entropy() -> None:
    """It must rise while the entropy (here 1 nat) is below the target, and fall while it is above."""
    slope = jax.jit(jax.grad(temperature_loss))
    density = np.full(8, -1.0, np.float32)
    assert slope(np.float32(0.0), density, np.float32(1.5)) < 0 < slope(np.float32(0.0), density, np.float32(0.5))
