"""Acting with a trained agent in a batch of environments, with or without a key-value cache."""

import abc
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ringrl.agents import SequenceAgent
from ringrl.devices import random_key
from ringrl.errors import parse_choice
from ringrl.evaluation.config import WhenFull
from ringrl.evaluation.history import History
from ringrl.nn import KeyValueCache, forget_contexts, grow_cache
from ringrl.types import Array, Chain, Context, Normalization, Parameters

SMALLEST_CACHE = 512  # minimum capacity of a cache in tokens, so that short contexts compile once
REBUILD_TOKENS = 512  # tokens decoded at a time when a cache is rebuilt


@dataclasses.dataclass(frozen=True)
class ActingConfig:
    """How an agent acts: target return, length of the history, and choice of actions."""

    target_return: float  # that the agent is conditioned on, in the environment's units; `default_target_return(store)`
    capacity: int  # steps of history kept; `ChainSampler.steps` for as many as in training
    sample: bool = True  # sample actions, else take the most likely
    temperature: float = 1.0  # of sampled actions
    when_full: WhenFull = WhenFull.drop  # drop the oldest whole trial, or start no further one

    def __post_init__(self) -> None:
        object.__setattr__(self, "when_full", parse_choice("when_full", self.when_full, WhenFull))


class HistoryPolicy(abc.ABC):
    """Base class of the policies: the history and the choice of actions."""

    def __init__(
        self, agent: SequenceAgent, parameters: Parameters, normalization: Normalization, config: ActingConfig
    ):
        self.agent = agent
        self.parameters = parameters
        self.normalization = normalization
        self.config = config

    def reset(self, num_environments: int, seed: int) -> None:
        """Clear the history, for a new batch."""
        self.history = History(
            self.agent.spec,
            self.normalization,
            self.agent.context,
            environments=num_environments,
            capacity=self.config.capacity,
            target_return=self.config.target_return,
        )
        self._key = random_key(seed)
        self._calls = 0

    def act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Actions (B, A) or (B,) for raw observations (B, O); inactive rows (B,) are ignored."""
        changed = self.history.make_room(active)
        self.history.append(observations, active)
        self._calls += 1
        self.outputs = self._run(active, changed)
        calls = jax.device_put(np.int32(self._calls))
        picked = _pick(self.agent, self.config.sample, self.config.temperature, self.outputs, self._key, calls)
        taken = self.normalization.environment_actions(jax.device_get(picked))
        # Record the executed action, as the data would contain it: a dimension with a single valid action has no other.
        self.actions = self.normalization.actions(taken)
        return taken

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        """Record the rewards (B,) of the last actions, and where they ended a trial (B,)."""
        self.history.finish_step(self.actions, rewards, finished, active)

    @property
    def full(self) -> np.ndarray:
        """Rows (B,) in which no further trial may start: with when_full=stop, those without room for the longest."""
        room = self.history.capacity - self.history.lengths
        return (room < self.agent.spec.max_episode_steps) & (self.config.when_full is WhenFull.stop)

    @abc.abstractmethod
    def _run(self, active: np.ndarray, changed: np.ndarray) -> Array:
        """Outputs (B, U) at the newest step of the active rows; `changed` rows have lost their oldest steps."""


class RecomputingPolicy(HistoryPolicy):
    """Runs the whole history through the model at every step: the slow reference, and right for short windows."""

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        super().observe(rewards, finished, active)
        if self.agent.context is not Context.chain:
            self.history.clear(finished & active)

    def _run(self, active: np.ndarray, changed: np.ndarray) -> jax.Array:
        newest = np.maximum(self.history.lengths - 1, 0)
        return _recompute(self.agent, self.parameters, *jax.device_put((self.history.chain(), newest)))

    @property
    def full(self) -> np.ndarray:
        if self.agent.context is not Context.chain:
            return np.zeros(len(self.history.lengths), bool)
        return super().full


class CachedPolicy(HistoryPolicy):
    """Keeps keys and values, so that a step costs a constant number of new tokens.

    When the oldest trajectory is dropped, the cache of that environment is rebuilt from the remaining steps: keys and
    values of later steps depend on the dropped one, so keeping them would not equal the full forward pass.

    The cache is sharded over the agent's mesh if it has one. If that spans processes, all of them act together, each on
    the same observations and rewards (`ringrl.evaluation.lockstep`), and each gets all actions.
    """

    def reset(self, num_environments: int, seed: int) -> None:
        """Clear the history, for a new batch."""
        super().reset(num_environments, seed)
        self._most_tokens = self.config.capacity * self.agent.tokens_per_step
        self._cache = self.agent.empty_cache(num_environments, min(SMALLEST_CACHE, self._most_tokens))

    def _run(self, active: np.ndarray, changed: np.ndarray) -> Array:
        if changed.any():
            self._rebuild(changed)
        self._hold(int(self.history.lengths.max()))
        outputs = self._decode(self._only(active, self.history.recent(2)))
        return outputs if self.agent.mesh is None else jax.device_put(jax.device_get(outputs)[: len(active)])

    def _rebuild(self, rows: np.ndarray) -> None:
        """Rewrite the cache of `rows`, up to the last step but one."""
        count = max(1, REBUILD_TOKENS // self.agent.tokens_per_step)
        self._cache = _forget(self._cache, self._everywhere(rows))
        known = int(self.history.lengths[rows].max()) - 1
        for start in range(0, known, count):
            positions = np.arange(start - 1, start + count, dtype=np.int32)
            chain = self.history.steps(np.broadcast_to(positions, (len(rows), count + 1)))
            before_newest = positions[None, :] < (self.history.lengths - 1)[:, None]
            self._decode(self._only(rows[:, None] & before_newest, chain))

    def _decode(self, chain: Chain) -> jax.Array:
        """Decode a chain into the cache; returns outputs (B, U) at its last step."""
        outputs, self._cache = _decode(self.agent, self.parameters, self._everywhere(chain), self._cache)
        return outputs

    def _everywhere(self, arrays: Any) -> Any:
        """Replicate arrays (B, ...) on every device of the mesh, padded with copies of the last context."""
        mesh = self.agent.mesh
        if mesh is None:
            return jax.device_put(arrays)
        extra = self._cache.contexts - len(self.history.lengths)
        whole = NamedSharding(mesh, PartitionSpec())

        def put(array: np.ndarray) -> jax.Array:
            array = np.concatenate([array, np.repeat(array[-1:], extra, axis=0)])
            return jax.make_array_from_callback(array.shape, whole, lambda index: array[index])

        return jax.tree.map(put, arrays)

    def _only(self, rows: np.ndarray, chain: Chain) -> Chain:
        """The chain with all other rows (B,), or steps (B, P), turned into padding."""
        rows = rows if rows.ndim == 2 else rows[:, None]
        return dataclasses.replace(chain, segment_ids=np.where(rows, chain.segment_ids, -1))

    def _hold(self, steps: int) -> None:
        """Grow the cache to hold `steps` steps by doubling, so that a growing context compiles few programs.

        A step then reads at most twice as many rows as the context needs.
        """
        capacity = self._cache.capacity
        while capacity < steps * self.agent.tokens_per_step:
            capacity *= 2
        if capacity > self._cache.capacity:
            self._cache = _grow(self._cache, min(capacity, self._most_tokens))


def make_policy(
    agent: SequenceAgent, parameters: Parameters, normalization: Normalization, config: ActingConfig
) -> HistoryPolicy:
    """Create a policy: cached for a context of whole chains, recomputing for a sliding window.

    A sliding window cannot reuse cached keys and values, which depend on the steps that left the window. An agent of
    windows needs no mesh; an agent of chains may have one, with parameters sharded over it in any way.

    Args:
        agent: an agent from `make_agent`.
        parameters: such as `TrainState.params`.
        normalization: the scales of training, `ChainSampler.normalization`.
        config: target return, length of the history, and choice of actions.

    Returns:
        A policy over a batch of environments, as `rollout` takes it; `Policy` wraps it for a gymnasium loop.
    """
    kind = CachedPolicy if agent.context is Context.chain else RecomputingPolicy
    return kind(agent, parameters, normalization, config)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pick(
    agent: SequenceAgent, sample: bool, temperature: float, outputs: jax.Array, key: jax.Array, calls: jax.Array
) -> jax.Array:
    if not sample:
        return agent.head.mode(outputs)
    return agent.head.sample(outputs, jax.random.fold_in(key, calls), temperature)


@functools.partial(jax.jit, static_argnums=(0,))
def _recompute(agent: SequenceAgent, parameters: Parameters, chain: Chain, newest: jax.Array) -> jax.Array:
    outputs = agent.outputs(parameters, chain)
    return jnp.take_along_axis(outputs, newest[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=(0,), donate_argnums=(3,))
def _decode(
    agent: SequenceAgent, parameters: Parameters, chain: Chain, cache: KeyValueCache
) -> tuple[jax.Array, KeyValueCache]:
    outputs, cache = agent.decode(parameters, chain, cache)
    newest = outputs[:, -1]
    if agent.mesh is not None:
        newest = jax.lax.with_sharding_constraint(newest, NamedSharding(agent.mesh, PartitionSpec()))
    return newest, cache


_grow = jax.jit(grow_cache, static_argnums=1)
_forget = jax.jit(forget_contexts, donate_argnums=0)
