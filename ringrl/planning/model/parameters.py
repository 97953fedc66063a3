"""Parameter counts of a plan's agent, their sharding, and the sizes of its matrices, without tracing."""

import dataclasses
import math

from jax.sharding import AbstractMesh

from ringrl.agents.action_heads import make_head
from ringrl.agents.layout import token_layout
from ringrl.nn import ModelConfig
from ringrl.nn.config import Feedforward
from ringrl.parallel.sharding import leaf_spec, split_axes
from ringrl.planning.plan import Plan
from ringrl.types import ActionKind

LAYERS = "transformer/layers/"  # prefix of the paths of stacked parameters


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    total: int
    on_device: int  # parameters on one device, of the total
    attention: int  # in the matrices of one layer
    feedforward: int


def parameter_counts(plan: Plan) -> ParameterCounts:
    """Count the parameters of the plan's agent on the plan's mesh; raises RingRLError if they do not match."""
    shapes = parameter_shapes(plan)
    model = plan.model
    per_layer = {path: math.prod(shape[1:]) for path, shape in shapes.items() if path.startswith(LAYERS)}
    feedforward = sum(size for path, size in per_layer.items() if "/feedforward/" in path)
    return ParameterCounts(
        total=sum(map(math.prod, shapes.values())),
        on_device=sum(numbers_on_device(plan, path, shape) for path, shape in shapes.items()),
        attention=sum(per_layer.values()) - feedforward - 2 * model.width,
        feedforward=feedforward,
    )


def parameter_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape by its path, as made by `SequenceAgent.init`."""
    agent, model, spec = plan.agent, plan.model, plan.data.spec
    layout = token_layout(agent)
    width, actions = model.width, spec.action.size
    sizes = {"observation": spec.observation_size, "action": actions, "previous_action": actions + 1}
    shapes: dict[str, tuple[int, ...]] = {}
    for index, slot in enumerate(layout.slots):
        projection = f"embedding/projections/slot_{index}"
        shapes[f"{projection}/kernel"] = (sum(sizes.get(field, 1) for field in slot), width)
        shapes[f"{projection}/bias"] = (width,)
    if agent.timestep_embedding:
        shapes["embedding/timestep/embedding"] = (spec.max_episode_steps, width)
    if agent.trajectory_embedding:
        shapes["embedding/trajectory/embedding"] = (agent.max_trajectories, width)
    shapes |= {f"{LAYERS}{path}": (model.layers, *shape) for path, shape in _layer_shapes(model).items()}
    shapes["transformer/norm/scale"] = (width,)
    outputs = make_head(agent, spec.action).output_size
    return {**shapes, "action/kernel": (width, outputs), "action/bias": (outputs,)}


def numbers_on_device(plan: Plan, path: str, shape: tuple[int, ...]) -> int:
    """Size of a parameter's shard on one device, by the trainer's sharding rules."""
    sizes = plan.sizes
    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes))
    spec = leaf_spec(path, shape, mesh)  # pyright: ignore[reportArgumentType]
    return math.prod(shape) // math.prod(sizes[axis] for axis in split_axes(spec))


def numbers_of_step(plan: Plan) -> int:
    """Size of a step of the batch, counting the fields that the agent reads: JAX drops unused fields."""
    spec = plan.data.spec
    action = 1 if spec.action.kind is ActionKind.discrete else spec.action.size
    fields = [field for slot in token_layout(plan.agent).slots for field in slot]
    sizes = {"observation": spec.observation_size, "action": 0, "previous_action": action}  # of actions, see below
    read = sum(sizes.get(field, 1) for field in fields)
    read += any(field.startswith("previous_") for field in fields)  # whether the previous step is read
    read += plan.agent.timestep_embedding + plan.agent.trajectory_embedding
    return read + action + 3  # the supervised action, positions, segments, and the loss mask


def key_value_heads(model: ModelConfig) -> int:
    """Number K of key/value heads of the whole model."""
    return model.key_value_heads or model.heads


def feedforward_width(model: ModelConfig) -> int:
    """Hidden size F of the feed-forward."""
    return model.feedforward_width or 4 * model.width


def _layer_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    width, hidden = model.width, feedforward_width(model)
    narrow = key_value_heads(model) * (width // model.heads)
    shapes = {
        "attention_norm/scale": (width,),
        "query/kernel": (width, width),
        "key/kernel": (width, narrow),
        "value/kernel": (width, narrow),
        "output/kernel": (width, width),
        "feedforward_norm/scale": (width,),
        "feedforward/up/kernel": (width, hidden),
        "feedforward/down/kernel": (hidden, width),
    }
    if model.feedforward is Feedforward.swiglu:
        shapes["feedforward/gate/kernel"] = (width, hidden)
    return shapes
