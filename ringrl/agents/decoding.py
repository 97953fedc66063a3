"""Action outputs of new steps against a cache: acting, a step at a time."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float

from ringrl.nn import KeyValueCache, decode_tokens
from ringrl.nn.embeddings import token_labels, token_positions
from ringrl.types import Chain

if TYPE_CHECKING:
    from ringrl.agents.sequence_agent import TokenModel


def decode_steps(
    model: "TokenModel", chain: Chain, cache: KeyValueCache
) -> tuple[Float[Array, "B P U"], KeyValueCache]:
    """Action outputs of new steps against a cache.

    `chain` (B, P + 1) starts with the step before the new ones, of which only the tokens after its action are new;
    of the last step only the tokens up to its observation are available. So P steps take P * tokens_per_step
    tokens. A step with a negative segment is not written.
    """
    per_step, slot = model.tokens_per_step, model.action_slot
    positions = token_positions(jnp.asarray(chain.positions), per_step)
    segments = token_labels(jnp.asarray(chain.segment_ids), per_step)
    positions = jnp.where(segments < 0, -1, positions)
    new = slice(slot + 1, positions.shape[1] - per_step + slot + 1)
    hidden, cache = decode_tokens(
        model.transformer,
        model.embedding(chain)[:, new],
        cache,
        positions=positions[:, new],
        segment_ids=segments[:, new],
    )
    at_action = hidden[:, per_step - 1 :: per_step]
    return model.action(at_action.astype(jnp.float32)), cache
