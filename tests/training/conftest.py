"""A toy agent and its batches, small enough to compile in a moment."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.training import loop
from ringrl.types import Chain

OBSERVATIONS, ACTIONS, CHAINS, STEPS = 3, 2, 8, 5


@dataclasses.dataclass(frozen=True)
class ToyAgent:
    """A two-layer regression with dropout, and an agent's interface."""

    dropout_rate: float = 0.0
    tokens_per_step: int = 2
    mesh: None = None

    def init(self, key):
        first, second = jax.random.split(key)
        return {
            "hidden": {"kernel": jax.random.normal(first, (OBSERVATIONS, 4)), "bias": jnp.zeros((4,))},
            "action": {"kernel": jax.random.normal(second, (4, ACTIONS)), "bias": jnp.zeros((ACTIONS,))},
        }

    def loss(self, params, batch, dropout_key=None):
        hidden = jnp.tanh(batch.observations @ params["hidden"]["kernel"] + params["hidden"]["bias"][None, None])
        if dropout_key is not None and self.dropout_rate > 0:
            keep = jax.random.bernoulli(dropout_key, 1 - self.dropout_rate, hidden.shape)
            hidden = jnp.where(keep, hidden / (1 - self.dropout_rate), 0.0)
        action = hidden @ params["action"]["kernel"] + params["action"]["bias"][None, None]
        error = ((action - batch.actions) ** 2).mean(axis=-1)
        supervised = batch.loss_mask.sum()
        loss = (error * batch.loss_mask).sum() / jnp.maximum(supervised, 1.0)
        return loss, {"supervised_steps": supervised, "absolute_action": jnp.abs(action).mean(axis=-1).mean()}

    def train_flops(self, chains, steps):
        return 6.0 * chains * steps * (OBSERVATIONS * 4 + 4 * ACTIONS)


def make_chain(index: int, chains: int = CHAINS, steps: int = STEPS) -> Chain:
    """Batch `index` of a stream: random numbers, and unevenly many supervised steps per chain."""
    generator = np.random.default_rng(index)
    observations = generator.standard_normal((chains, steps, OBSERVATIONS)).astype(np.float32)
    actions = np.tanh(observations[..., :ACTIONS]).astype(np.float32)
    lengths = generator.integers(1, steps + 1, chains)
    ones = np.ones((chains, steps), np.float32)
    counters = np.tile(np.arange(steps, dtype=np.int32), (chains, 1))
    return Chain(
        observations=observations,
        actions=actions,
        rewards=ones,
        return_to_go=ones,
        completion=ones,
        previous_actions=actions,
        previous_rewards=ones,
        previous_completion=ones,
        previous_mask=ones,
        timesteps=counters,
        trajectories=counters,
        positions=counters,
        segment_ids=counters,
        loss_mask=(counters < lengths[:, None]).astype(np.float32),
    )


def stream(start: int) -> Iterator[Chain]:
    """Batches start, start + 1, ... without end."""
    while True:
        yield make_chain(start)
        start += 1


@pytest.fixture(scope="session")
def toy_agent() -> type[ToyAgent]:
    return ToyAgent


@pytest.fixture(scope="session")
def chain() -> Callable[..., Chain]:
    return make_chain


@pytest.fixture(scope="session")
def batches() -> Callable[[int], Iterator[Chain]]:
    return stream


@pytest.fixture
def poisoned() -> Callable[[set[int] | None], Callable[[int], Iterator[Chain]]]:
    """A stream whose batches at the given indices (None: all) hold a NaN."""

    def make(indices: set[int] | None) -> Callable[[int], Iterator[Chain]]:
        def batches(start: int) -> Iterator[Chain]:
            for index, batch in enumerate(stream(start), start):
                bad = indices is None or index in indices
                yield dataclasses.replace(batch, observations=batch.observations * np.nan) if bad else batch

        return batches

    return make


@pytest.fixture
def assert_same() -> Callable[[object, object], None]:
    """Two pytrees are equal bit for bit, keys included."""

    def check(actual, expected):
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    return check


@pytest.fixture(scope="session")
def compiled_steps() -> dict:
    """Train steps by agent and configuration."""
    return {}


@pytest.fixture
def compile_once(compiled_steps: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """One compilation for all runs of the same agent and configuration; the shapes are all alike."""
    compile_train_step = loop.compile_train_step

    def find_or_compile(agent, training, state, batch, programs=None):
        key = (agent, training.steps, training.gradient_accumulation, training.optimizer)
        if key not in compiled_steps:
            compiled_steps[key] = compile_train_step(agent, training, state, batch)
        return compiled_steps[key]

    monkeypatch.setattr(loop, "compile_train_step", find_or_compile)
