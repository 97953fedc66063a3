"""What all agents share: tokens of a chain in, loss and action out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ringrl.agents.action_heads import Head, make_head
from ringrl.agents.config import AgentConfig
from ringrl.agents.layout import TokenLayout, token_layout
from ringrl.errors import RingRLError, choice
from ringrl.nn import KeyValueCache, ModelConfig, Transformer, empty_cache
from ringrl.nn.embeddings import StepEmbedding, token_labels, token_positions
from ringrl.ops import AttentionConfig
from ringrl.types import Chain, Context, DataSpec, Metrics, Parameters


class TokenModel(nnx.Module):
    """Embedding, transformer and action outputs."""

    def __init__(self, agent: "SequenceAgent", rngs: nnx.Rngs):
        config, width = agent.config, agent.model_config.width
        self.embedding = StepEmbedding(
            agent.layout.slots,
            agent.spec,
            width,
            timestep_embedding=config.timestep_embedding,
            max_trajectories=config.max_trajectories if config.trajectory_embedding else 0,
            dtype=agent.compute_dtype,
            rngs=rngs,
        )
        self.transformer = Transformer(agent.model_config, agent.attention_config, agent.compute_dtype, rngs)
        initializer = nnx.initializers.normal(0.02)
        self.action = nnx.Linear(width, agent.head.output_size, kernel_init=initializer, rngs=rngs)


class SequenceAgent:
    """A causal transformer over the tokens of chains; every method is a pure function of parameters.

    What tells agents apart is their tokens (`layout`) and how far back a step sees, which the chain's segments say.
    """

    contexts: tuple[Context, ...] = tuple(Context)  # the contexts that make sense for this agent

    def __init__(
        self,
        config: AgentConfig,
        model_config: ModelConfig,
        attention_config: AttentionConfig,
        spec: DataSpec,
        *,
        context: Context,
        compute_dtype: Any = jnp.float32,
        mesh: jax.sharding.Mesh | None = None,
    ):
        context = choice("chain.context", context, Context)
        if context not in self.contexts:
            fitting = " or ".join(self.contexts)
            raise RingRLError(f"chain.context={context} does not fit agent.name={config.name}: use {fitting}.")
        self.config = config
        self.context = context
        self.model_config = model_config
        self.attention_config = attention_config
        self.spec = spec
        self.compute_dtype = compute_dtype
        self.mesh = mesh
        self.name = str(config.name)
        self.layout: TokenLayout = token_layout(config)
        self.tokens_per_step = self.layout.tokens_per_step
        self.head: Head = make_head(config, spec.action)
        self._graph, self._abstract = nnx.split(nnx.eval_shape(lambda: TokenModel(self, nnx.Rngs(0))))

    def init(self, key: jax.Array) -> Parameters:
        """Fresh parameters in float32: a nested dictionary of arrays."""
        return nnx.to_pure_dict(nnx.state(TokenModel(self, nnx.Rngs(key)), nnx.Param))

    def outputs(self, parameters: Parameters, chain: Chain, key: jax.Array | None = None) -> Float[Array, "B P U"]:
        """Action outputs of every step, in float32; dropout when a key is given."""
        model = self._bind(parameters)
        per_step = self.tokens_per_step
        hidden = model.transformer(
            model.embedding(chain),
            positions=token_positions(jnp.asarray(chain.positions), per_step),
            segment_ids=token_labels(jnp.asarray(chain.segment_ids), per_step),
            dropout_key=key,
            mesh=self.mesh,
        )
        at_action = hidden.reshape(*chain.rewards.shape, per_step, -1)[:, :, self.layout.action_slot]
        return model.action(at_action.astype(jnp.float32))

    def loss(self, parameters: Parameters, batch: Chain, key: jax.Array | None = None) -> tuple[jax.Array, Metrics]:
        """Mean action loss over supervised steps (DESIGN.md, section 3)."""
        losses = self.head.loss(self.outputs(parameters, batch, key), jnp.asarray(batch.actions))
        supervised = batch.loss_mask.sum()
        loss = jnp.where(batch.loss_mask > 0, losses, 0.0).sum() / jnp.maximum(supervised, 1.0)
        return loss, {"supervised_steps": supervised}

    def empty_cache(self, contexts: int, tokens: int) -> KeyValueCache:
        """A cache for `contexts` contexts of up to `tokens` tokens."""
        return empty_cache(self.model_config, contexts, tokens, self.compute_dtype)

    def decode(
        self, parameters: Parameters, chain: Chain, cache: KeyValueCache
    ) -> tuple[Float[Array, "B P U"], KeyValueCache]:
        """Action outputs of new steps against a cache, for the tokens between two moments of acting.

        `chain` (B, P + 1) starts with the step before the new ones; of it only the tokens after its action are
        new, and of the last step only those up to its observation are known. So P steps take P * tokens_per_step
        tokens. A step of negative segment is not written.
        """
        model = self._bind(parameters)
        per_step, slot = self.tokens_per_step, self.layout.action_slot
        positions = token_positions(jnp.asarray(chain.positions), per_step)
        segments = token_labels(jnp.asarray(chain.segment_ids), per_step)
        positions = jnp.where(segments < 0, -1, positions)
        new = slice(slot + 1, positions.shape[1] - per_step + slot + 1)
        hidden, cache = model.transformer.decode(
            model.embedding(chain)[:, new],
            cache,
            positions=positions[:, new],
            segment_ids=segments[:, new],
        )
        at_action = hidden[:, per_step - 1 :: per_step]
        return model.action(at_action.astype(jnp.float32)), cache

    def train_flops(self, chains: int, steps: int) -> float:
        """Model FLOPs of one training step: 6 a parameter and token, and causal attention counted once.

        Parameters are those of matrices. Attention takes 2 S^2 M FLOPs a layer forward (half of the two products'
        4 S^2 M, for causality), three times that in all. Recomputation is not counted.
        """
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        matrices = dict(shapes)
        embedding = dict(matrices.pop("embedding"))
        action = matrices.pop("action")
        per_token = sum(leaf.size for leaf in jax.tree.leaves(matrices) if leaf.ndim > 2)
        per_step = sum(leaf.size for leaf in jax.tree.leaves((embedding["projections"], action)) if leaf.ndim > 1)
        tokens = steps * self.tokens_per_step
        attention = 2.0 * tokens**2 * self.model_config.width * self.model_config.layers
        return chains * (6.0 * (per_token * tokens + per_step * steps) + 3.0 * attention)

    def _bind(self, parameters: Parameters) -> TokenModel:
        """The model with these parameters in place."""
        state = jax.tree.map(lambda leaf: leaf, self._abstract)
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(self._graph, state)
