"""Embedding of the steps of a chain as tokens."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ringrl.ops.masks import silence_padding
from ringrl.types import ActionKind, Chain, DataSpec


class StepEmbedding(nnx.Module):
    """A linear map per slot over its concatenated fields, plus embeddings of timestep and trajectory."""

    def __init__(
        self,
        slots: tuple[tuple[str, ...], ...],
        spec: DataSpec,
        width: int,
        *,
        timestep_embedding: bool,
        max_trajectories: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.slots = slots
        self.spec = spec
        self.dtype = dtype
        action_size = spec.action.size
        # A field of the previous step comes with a flag that distinguishes "no previous step" from zero.
        sizes = {"observation": spec.observation_size, "action": action_size, "previous_action": action_size + 1}
        self.projections = nnx.Dict(
            {
                f"slot_{index}": nnx.Linear(sum(sizes.get(field, 1) for field in slot), width, dtype=dtype, rngs=rngs)
                for index, slot in enumerate(slots)
            }
        )
        initializer = nnx.initializers.normal(0.1)
        rows = spec.max_episode_steps
        self.timestep = (
            nnx.Embed(rows, width, embedding_init=initializer, dtype=dtype, rngs=rngs) if timestep_embedding else None
        )
        self.trajectory = (
            nnx.Embed(max_trajectories, width, embedding_init=initializer, dtype=dtype, rngs=rngs)
            if max_trajectories
            else None
        )

    def __call__(self, chain: Chain) -> Float[Array, "B S M"]:
        """Tokens of every step, its slots adjacent; tokens of padding are embedded from zeros."""
        segments = jnp.asarray(chain.segment_ids)
        tokens = jnp.stack(
            [
                projection(
                    silence_padding(jnp.concatenate([self._field(chain, field) for field in slot], -1), segments)
                )
                for slot, projection in zip(self.slots, self.projections.values(), strict=True)
            ],
            axis=2,
        )  # (B, P, slots, M)
        shared = 0
        if self.timestep is not None:
            shared += self.timestep(jnp.clip(chain.timesteps, 0, self.timestep.num_embeddings - 1))
        if self.trajectory is not None:
            shared += self.trajectory(jnp.clip(chain.trajectories, 0, self.trajectory.num_embeddings - 1))
        if not isinstance(shared, int):
            tokens += shared[:, :, None, :]
        return tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])

    def _field(self, chain: Chain, field: str) -> jax.Array:
        if field == "observation":
            value = chain.observations
        elif field in ("action", "previous_action"):
            value = chain.actions if field == "action" else chain.previous_actions
            if self.spec.action.kind is ActionKind.discrete:
                value = jax.nn.one_hot(value, self.spec.action.size, dtype=jnp.float32)
        else:
            names = {"return_to_go": "return_to_go", "reward": "rewards", "previous_reward": "previous_rewards"}
            value = getattr(chain, names.get(field, field))[..., None]
        if field.startswith("previous_"):
            mask = chain.previous_mask[..., None]
            value = value * mask
            if field == "previous_action":
                value = jnp.concatenate([value, mask], axis=-1)
        return jnp.asarray(value, self.dtype)


def token_labels(values: Int[Array, "B P"], tokens_per_step: int) -> Int[Array, "B S"]:
    """Repeat a label of each step for its tokens."""
    return jnp.repeat(values, tokens_per_step, axis=1)


def token_positions(positions: Int[Array, "B P"], tokens_per_step: int) -> Int[Array, "B S"]:
    """Token positions: tokens_per_step * step position + slot (docs/design.md, Contracts)."""
    slots = jnp.arange(tokens_per_step, dtype=positions.dtype)
    return (positions[:, :, None] * tokens_per_step + slots[None, None, :]).reshape(positions.shape[0], -1)
