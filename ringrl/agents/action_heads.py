"""Action heads: the distribution over actions that a model predicts, its loss, and how an action is chosen from it."""

import jax
import jax.numpy as jnp
import optax

from ringrl.agents.config import ActionHead, AgentConfig
from ringrl.agents.continuous_heads import BinsHead, DeterministicHead, GaussianHead
from ringrl.agents.head import Head
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec


class CategoricalHead(Head):
    """A categorical distribution over discrete actions, with cross-entropy loss."""

    def __init__(self, spec: ActionSpec):
        self.output_size = spec.size

    def loss(self, outputs, actions):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, actions)

    def mode(self, outputs):
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def sample(self, outputs, key, temperature):
        return jax.random.categorical(key, outputs / temperature).astype(jnp.int32)


def make_head(config: AgentConfig, spec: ActionSpec) -> Head:
    """The action head that `config` selects for these actions.

    Raises:
        RingRLError: the head does not fit the kind of action.
    """
    discrete = spec.kind is ActionKind.discrete
    head = config.action_head
    if head is ActionHead.auto:
        head = ActionHead.categorical if discrete else ActionHead.bins
    if (head is ActionHead.categorical) != discrete:
        fitting = "categorical" if discrete else "bins, gaussian or deterministic"
        raise RingRLError(f"agent.action_head={head} does not fit {spec.kind} actions; use {fitting}, or auto.")
    match head:
        case ActionHead.categorical:
            return CategoricalHead(spec)
        case ActionHead.deterministic:
            return DeterministicHead(spec)
        case ActionHead.gaussian:
            return GaussianHead(spec)
        case _:
            return BinsHead(spec, config.action_bins)
