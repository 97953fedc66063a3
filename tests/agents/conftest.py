"""Chains built from recorded steps, with all `previous_*` fields derived inside, so that gradients reveal leaks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec

CONTINUOUS = ActionSpec(ActionKind.continuous, 2, (-1.0, -2.0), (3.0, 2.0))
DISCRETE = ActionSpec(ActionKind.discrete, 5)
OBSERVATIONS = 3
QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


def as_chain(happened: dict[str, jax.Array], segment_ids: np.ndarray, trajectories: np.ndarray) -> Chain:
    """Steps in order; a step knows the one before when both are of one segment."""
    known = np.zeros(segment_ids.shape, bool)
    known[:, 1:] = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] >= 0)

    def before(values):
        shifted = jnp.concatenate([jnp.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
        mask = known.reshape(known.shape + (1,) * (values.ndim - 2))
        return jnp.where(mask, shifted, jnp.zeros((), values.dtype))

    counted = np.broadcast_to(np.arange(segment_ids.shape[1], dtype=np.int32), segment_ids.shape)
    return Chain(
        **happened,
        previous_actions=before(happened["actions"]),
        previous_rewards=before(happened["rewards"]),
        previous_completion=before(happened["completion"]),
        previous_mask=jnp.asarray(known, jnp.float32),
        timesteps=jnp.asarray(counted % 4),
        trajectories=jnp.asarray(trajectories),
        positions=jnp.asarray(counted),
        segment_ids=jnp.asarray(segment_ids),
        loss_mask=jnp.asarray(segment_ids >= 0, jnp.float32),
    )


def random_steps(chains: int, steps: int, action: ActionSpec = CONTINUOUS, seed: int = 0) -> dict[str, jax.Array]:
    """Random content of each step."""
    generator = np.random.default_rng(seed)
    if action.kind is ActionKind.discrete:
        actions = generator.integers(action.size, size=(chains, steps)).astype(np.int32)
    else:
        actions = generator.uniform(action.low, action.high, size=(chains, steps, action.size)).astype(np.float32)
    drawn = {
        "observations": generator.normal(size=(chains, steps, OBSERVATIONS)).astype(np.float32),
        "actions": actions,
        **{
            name: generator.normal(size=(chains, steps)).astype(np.float32)
            for name in ("rewards", "return_to_go", "completion")
        },
    }
    return {name: jnp.asarray(values) for name, values in drawn.items()}


class Tools:
    """Helpers shared by the tests of this folder."""

    as_chain = staticmethod(as_chain)
    random_steps = staticmethod(random_steps)
    jit = staticmethod(functools.partial(jax.jit, compiler_options=QUICK))
    continuous = CONTINUOUS
    discrete = DISCRETE

    def agent(
        self, context=Context.chain, action=CONTINUOUS, model=None, compute_dtype=jnp.float32, **options
    ) -> SequenceAgent:
        return make_agent(
            AgentConfig(**options),
            ModelConfig(**{"layers": 1, "width": 16, "heads": 2, **(model or {})}),
            AttentionConfig(),
            DataSpec(OBSERVATIONS, action, 9),
            context=context,
            compute_dtype=compute_dtype,
        )

    def parameters(self, agent: SequenceAgent):
        """Drawn by numpy, to compile nothing; large enough that every part is felt."""
        generator = np.random.default_rng(0)

        def draw(leaf):
            return jnp.asarray(0.5 * generator.normal(size=leaf.shape), leaf.dtype)

        return jax.tree.map(draw, jax.eval_shape(agent.init, jax.random.key(0)))

    @functools.cached_property
    def one_segment(self):
        """Segment ids and trajectories of 2 chains of 6 steps: one segment, two trajectories."""
        return np.zeros((2, 6), np.int32), np.array([[0, 0, 0, 1, 1, 1]] * 2, np.int32)


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()
