"""Pytrees and specifications that cross rooms, and the shape legend.

Shape legend: B chains in a batch, N trajectories in a chain, P steps in a chain (all its trajectories end to
end, padded at the end), S = tokens_per_step * P tokens, O observation size, A action size or number of
discrete actions, L layers, M model width, F feed-forward width, H query heads, K key/value heads (K divides
H), D head size, C block size.
"""

import dataclasses
import enum
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
Parameters = Any  # a pytree (nested dictionaries) of jax.Array
Metrics = dict[str, Any]

# Axes of the one mesh (DESIGN.md, section 5): what chains, the steps of a chain, and parameters are split over.
BATCH_AXES, SEQUENCE_AXES, PARAMETER_AXES = ("data", "fsdp"), ("ring", "head"), ("fsdp", "ring", "head")


def random_key(seed: int) -> jax.Array:
    """`jax.random.key(seed)`, a transfer that is meant: `JAX_TRANSFER_GUARD=disallow` lets it through."""
    with jax.transfer_guard("allow"):
        return jax.random.key(seed)


def automatic(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """The mesh with axes of the type that RingRL's programs are written for; JAX's own default is explicit axes."""
    kinds = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
    return mesh if mesh.axis_types == kinds else jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


class ActionKind(enum.StrEnum):
    """What an action is: a vector of real numbers, or one of A choices."""

    continuous = "continuous"
    discrete = "discrete"


class Context(enum.StrEnum):
    """How far back a step may look: the whole chain (AT), its own trial (DT, and AT's control), or itself (BC)."""

    chain = "chain"
    trial = "trial"
    step = "step"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain:
    """A batch of chains of trajectories, step by step; all scaled by the run's `Normalization`.

    Every field is aligned by step and carries its own position, so any reordering of the step axis keeps its
    meaning. `previous_*` describe the step before, so that a merged token knows what has just happened.
    """

    observations: Array  # (B, P, O) float32
    actions: Array  # (B, P, A) float32, or (B, P) int32 when discrete
    rewards: Array  # (B, P) float32
    return_to_go: Array  # (B, P) float32
    completion: Array  # (B, P) float32: 1 on the last step of a trajectory that reached the target return
    previous_actions: Array  # as actions; zeros where previous_mask is 0
    previous_rewards: Array  # (B, P) float32
    previous_completion: Array  # (B, P) float32
    previous_mask: Array  # (B, P) float32: 0 where no earlier step is visible (start of a segment)
    timesteps: Array  # (B, P) int32: step within the episode
    trajectories: Array  # (B, P) int32: index of the trajectory in its chain
    positions: Array  # (B, P) int32: step position in the chain
    segment_ids: Array  # (B, P) int32: steps attend within their segment; negative is padding
    loss_mask: Array  # (B, P) float32: 1 where the action is supervised


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """Actions of an environment: kind, size (A), and bounds per dimension (empty when discrete)."""

    kind: ActionKind
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data: sizes, and the longest episode in steps."""

    observation_size: int
    action: ActionSpec
    max_episode_steps: int


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Scales stored with a run: observations are standardised, rewards and returns divided.

    The same object serves the loader and the acting policy, so a policy never meets unscaled numbers.
    """

    observation_mean: np.ndarray  # (O,) float32
    observation_std: np.ndarray  # (O,) float32, at least 1e-3 (a constant dimension gets 1)
    reward_scale: float = 1.0
    return_scale: float = 1.0

    def observations(self, raw: np.ndarray) -> np.ndarray:
        """Standardised observations of any leading shape, float32."""
        return ((raw - self.observation_mean) / self.observation_std).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "observation_mean": [float(x) for x in self.observation_mean],
            "observation_std": [float(x) for x in self.observation_std],
            "reward_scale": float(self.reward_scale),
            "return_scale": float(self.return_scale),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Normalization":
        """The inverse of `to_json`."""
        return cls(
            np.asarray(values["observation_mean"], np.float32),
            np.asarray(values["observation_std"], np.float32),
            values["reward_scale"],
            values["return_scale"],
        )
