"""The training state, which a training step reads and replaces."""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from ringrl.devices import random_key
from ringrl.ops import AttentionConfig
from ringrl.parallel.sharding import bytes_per_device, parameter_shardings
from ringrl.training.config import TrainingConfig
from ringrl.training.device import check_state_memory
from ringrl.training.optimizer import make_optimizer
from ringrl.training.programs import Programs, compile_function
from ringrl.types import Chain, Metrics, Parameters


class Agent(Protocol):
    """Protocol of an agent that can be trained (see `ringrl.agents.make_agent`)."""

    def init(self, key: jax.Array, /) -> Parameters:
        """Initial parameters: a nested dictionary of float32 arrays."""
        ...

    def loss(self, params: Parameters, batch: Chain, dropout_key: jax.Array | None, /) -> tuple[jax.Array, Metrics]:
        """Mean loss over the supervised steps of a batch, and scalar metrics including `supervised_steps`.

        With a mesh it is called inside `jax.shard_map`, with each device's shards of parameters and batch.
        """
        ...

    def train_flops(self, chains: int, steps: int) -> float:
        """Model FLOPs of one optimizer step on `chains` chains of `steps` steps."""
        ...

    @property
    def attention_config(self) -> AttentionConfig:
        """Configuration of attention; only read if there is a mesh."""
        ...

    @property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices that a chain is sharded over; None for one device."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens per environment step."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state and counters; with the data position (`step`) all that resuming needs.

    `step` counts consumed batches, including skipped ones, so it is also the index of the next batch.
    """

    params: Parameters
    optimizer_state: Any
    step: jax.Array  # () int32
    key: jax.Array  # () key: dropout of step k uses fold_in(key, k)
    skipped: jax.Array  # () int32: steps without an update because the loss or a gradient was not finite
    skipped_in_row: jax.Array  # () int32


def create_state(
    agent: Agent,
    training: TrainingConfig,
    seed: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    programs: Programs | None = None,
) -> TrainState:
    """Create the initial state, a function of the seed alone; each device creates its own shard.

    Args:
        agent: the agent whose parameters the state holds.
        training: settings of the optimizer.
        seed: seed of the parameters and of dropout.
        optimizer: replaces the one that `training` describes.
        programs: cache of the compiled initialization for later starts, if any.

    Returns:
        Parameters in float32, the optimizer's moments, and counters at 0.

    Raises:
        RingRLError: the state does not fit in a device's memory.
    """
    transform = optimizer if optimizer is not None else make_optimizer(training)
    create = jax.jit(functools.partial(_fresh, agent, transform), out_shardings=state_shardings(agent, transform))
    key = random_key(seed)
    if programs is None:
        shapes = jax.eval_shape(create, key)
    else:
        create = compile_function(create, "create_state", (key,), programs, agent.mesh)
        shapes = create.out_info
    check_state_memory(bytes_per_device(shapes, agent.mesh), jax.local_devices()[0])
    return create(key)


def state_shardings(agent: Agent, optimizer: optax.GradientTransformation) -> Any:
    """Shardings of a state's arrays on the agent's mesh; None, for the first device, without one."""
    if agent.mesh is None:
        return None
    return parameter_shardings(_shapes(agent, optimizer), agent.mesh)


def state_shapes(agent: Agent, training: TrainingConfig) -> TrainState:
    """Shapes and dtypes of a state, without allocating it."""
    return _shapes(agent, make_optimizer(training))


def _shapes(agent: Agent, optimizer: optax.GradientTransformation) -> TrainState:
    return jax.eval_shape(lambda: _fresh(agent, optimizer, jax.random.key(0)))


def _fresh(agent: Agent, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    parameter_key, dropout_key = jax.random.split(key)
    params = agent.init(parameter_key)
    # Separate zeros: a donated state may not hold the same buffer twice.
    counters = [jnp.zeros((), jnp.int32) for _ in range(3)]
    return TrainState(params, optimizer.init(params), counters[0], dropout_key, counters[1], counters[2])
