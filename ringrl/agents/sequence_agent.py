"""The base class of all agents: a causal transformer over the tokens of chains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ringrl.agents.action_heads import make_head
from ringrl.agents.config import AgentConfig
from ringrl.agents.decoding import decode_steps
from ringrl.agents.flops import count_train_flops
from ringrl.agents.head import Head
from ringrl.agents.layout import TokenLayout, token_layout
from ringrl.devices import with_automatic_axes
from ringrl.errors import RingRLError, parse_choice
from ringrl.nn import KeyValueCache, ModelConfig, Transformer, empty_cache
from ringrl.nn.embeddings import StepEmbedding, token_labels, token_positions
from ringrl.ops import AttentionConfig
from ringrl.ops.blocks import blockwise_sum
from ringrl.ops.parts import inside_mesh
from ringrl.ops.precision import accumulator_dtype
from ringrl.parallel.gather import materialize
from ringrl.parallel.sharding import parameter_specs
from ringrl.types import Chain, Context, DataSpec, Metrics, Parameters


class TokenModel(nnx.Module):
    """Step embedding, transformer, and linear projection to action outputs."""

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
        self.tokens_per_step, self.action_slot = agent.tokens_per_step, agent.layout.action_slot

    def __call__(
        self,
        chain: Chain,
        *,
        dropout_key: jax.Array | None = None,
        mesh: jax.sharding.Mesh | None = None,
        materialize_layer: Callable[[nnx.State], nnx.State] | None = None,
    ) -> Float[Array, "B P M"]:
        """Hidden states of a chain's steps, at the token that predicts the action."""
        tokens = self.embedding(chain)  # (B, S, M)
        positions = token_positions(jnp.asarray(chain.positions), self.tokens_per_step)
        segment_ids = token_labels(jnp.asarray(chain.segment_ids), self.tokens_per_step)
        hidden = self.transformer(
            tokens,
            positions=positions,
            segment_ids=segment_ids,
            dropout_key=dropout_key,
            mesh=mesh,
            materialize_layer=materialize_layer,
        )
        of_steps = hidden.reshape(*chain.rewards.shape, self.tokens_per_step, -1)
        return of_steps[:, :, self.action_slot]


class SequenceAgent:
    """A causal transformer over the tokens of chains; every method is a pure function of the parameters.

    Agents differ in their tokens (`layout`) and in the steps that a step attends to, which the chain's segment ids
    encode.
    """

    contexts: tuple[Context, ...] = tuple(Context)  # the contexts that this agent supports

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
        context = parse_choice("chain.context", context, Context)
        if context not in self.contexts:
            fitting = " or ".join(self.contexts)
            raise RingRLError(f"chain.context={context} does not fit agent.name={config.name}: use {fitting}.")
        self.config = config
        self.context = context
        self.model_config = model_config
        self.attention_config = attention_config
        self.spec = spec
        self.compute_dtype = compute_dtype
        self.mesh = mesh = None if mesh is None else with_automatic_axes(mesh)
        self.name = str(config.name)
        self.layout: TokenLayout = token_layout(config)
        self.tokens_per_step = self.layout.tokens_per_step
        self.head: Head = make_head(config, spec.action)
        self._graph, self._abstract = nnx.split(nnx.eval_shape(lambda: TokenModel(self, nnx.Rngs(0))))
        self._specs = None if mesh is None else parameter_specs(self._shapes(), mesh)

    def init(self, key: jax.Array) -> Parameters:
        """Initial parameters in float32, as a nested dictionary of arrays."""
        return nnx.to_pure_dict(nnx.state(TokenModel(self, nnx.Rngs(key)), nnx.Param))

    def _shapes(self) -> Parameters:
        return jax.eval_shape(lambda: self.init(jax.random.key(0)))

    def outputs(self, parameters: Parameters, chain: Chain, key: jax.Array | None = None) -> Float[Array, "B P U"]:
        """Action outputs of every step, in float32, with dropout if a key is given."""
        model, hidden = self._hidden(parameters, chain, key)
        return model.action(hidden.astype(accumulator_dtype(hidden)))

    def loss(self, parameters: Parameters, batch: Chain, key: jax.Array | None = None) -> tuple[jax.Array, Metrics]:
        """Mean action loss over supervised steps (docs/chains.md, Loss).

        Inside `jax.shard_map` over the agent's mesh, `parameters` and `batch` are the device's shards
        (`ringrl.parallel`), and the mean is over the device's steps.
        """
        model, hidden = self._hidden(parameters, batch, key)

        def total(hidden: jax.Array, actions: jax.Array, mask: jax.Array) -> jax.Array:
            # Actions of unsupervised steps may be arbitrary: a weight of 0 would not suppress a non-finite gradient.
            actions = jnp.where(mask.reshape(*mask.shape, *(1,) * (actions.ndim - 2)) > 0, actions, 0)
            losses = self.head.loss(model.action(hidden.astype(accumulator_dtype(hidden))), actions)
            return jnp.where(mask > 0, losses, 0.0).sum()

        steps = hidden, jnp.asarray(batch.actions), jnp.asarray(batch.loss_mask)
        supervised = batch.loss_mask.sum()
        with jax.named_scope("loss"):
            loss = blockwise_sum(total, steps, self.config.loss_block_size) / jnp.maximum(supervised, 1.0)
        return loss, {"supervised_steps": supervised}

    def empty_cache(self, contexts: int, tokens: int) -> KeyValueCache:
        """A key-value cache for `contexts` contexts of up to `tokens` tokens, sharded over the agent's mesh, if any."""
        return empty_cache(self.model_config, contexts, tokens, jnp.dtype(self.compute_dtype), self.mesh)

    def decode(
        self, parameters: Parameters, chain: Chain, cache: KeyValueCache
    ) -> tuple[Float[Array, "B P U"], KeyValueCache]:
        """Action outputs of new steps against a cache (`ringrl.agents.decoding.decode_steps`)."""
        return decode_steps(self._bind(parameters), chain, cache)

    def train_flops(self, chains: int, steps: int) -> float:
        """Model FLOPs of one training step (`ringrl.agents.flops.count_train_flops`)."""
        return chains * count_train_flops(self._shapes(), self.model_config, self.tokens_per_step, steps)

    def _hidden(
        self, parameters: Parameters, chain: Chain, key: jax.Array | None
    ) -> tuple[TokenModel, Float[Array, "B P M"]]:
        """The bound model, and its hidden states at the action tokens."""
        specs = self._specs if inside_mesh() else None
        parameters, materialize_layer = materialize(parameters, specs, self.compute_dtype)
        model = self._bind(parameters)
        return model, model(chain, dropout_key=key, mesh=self.mesh, materialize_layer=materialize_layer)

    def _bind(self, parameters: Parameters) -> TokenModel:
        """The model with these parameters."""
        state = jax.tree.map(lambda leaf: leaf, self._abstract)
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(self._graph, state)
