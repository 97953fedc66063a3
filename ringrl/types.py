"""Pytrees and specifications shared by all packages, and the shape legend.

Shape legend: B chains in a batch, N trajectories in a chain, P steps in a chain (all its trajectories concatenated,
padded at the end), S = tokens_per_step * P tokens, O observation size, A action size or number of discrete actions, L
layers, M model width, F feed-forward width, H query heads, K key/value heads (K divides H), D head size, C block size.
"""

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.chain import Array as Array
    from ringrl.chain import Chain as Chain

__getattr__ = on_demand(
    globals(), {"chain": "Array Chain"}, "ringrl"
)  # of JAX, which the words and sizes here do without

Parameters = Any  # a pytree (nested dictionaries) of jax.Array
Metrics = dict[str, Any]

# Axes of the mesh (docs/design.md, Contracts) over which chains, the steps of a chain, and parameters are sharded.
BATCH_AXES, SEQUENCE_AXES, PARAMETER_AXES = ("data", "fsdp"), ("ring", "head"), ("fsdp", "ring", "head")


class ActionKind(enum.StrEnum):
    """Kind of action: a vector of real numbers, or one of A choices."""

    continuous = "continuous"
    discrete = "discrete"


class Context(enum.StrEnum):
    """The steps that a step attends to: the whole chain (AT), its own trial (DT, and AT's control), or itself (BC)."""

    chain = "chain"
    trial = "trial"
    step = "step"


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """Actions of an environment: kind, size (A), and bounds per dimension (empty when discrete).

    Discrete actions are numbered from 0, whatever the environment's first number is.
    """

    kind: ActionKind
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    start: int = 0  # the environment's number of discrete action 0


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Properties of the data that a model needs: sizes, and the longest episode in steps."""

    observation_size: int
    action: ActionSpec
    max_episode_steps: int


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Scales stored with a run that bring all inputs of an agent to order 1.

    Observations are standardized, rewards and returns divided, continuous actions scaled to [-1, 1]. The loader and the
    acting policy share the same object, so a policy never sees unscaled numbers. Runs of older versions have no scale
    of actions and no limits.
    """

    observation_mean: np.ndarray  # (O,) float32
    observation_std: np.ndarray  # (O,) float32, positive
    reward_scale: float = 1.0
    return_scale: float = 1.0
    action_center: np.ndarray | None = None  # (A,) float32; None leaves actions unscaled, as for discrete ones
    action_half: np.ndarray | None = None  # (A,) float32, half the range of actions; 0 for a single valid action
    observation_limit: float | None = None  # scaled observations are clipped to -limit..limit; None sets no limit
    reward_limit: float | None = None  # same for scaled rewards

    def observations(self, raw: np.ndarray) -> np.ndarray:
        """Standardize observations of any leading shape, in float32.

        An environment's float64 is rounded first, as in the data: without that, a value scaled to 1e6 could be off by a
        sixteenth.
        """
        with np.errstate(over="ignore"):  # a difference beyond float32 is beyond the limit too
            raw = np.asarray(raw, np.float32)
            shown = ((raw - self.observation_mean) / self.observation_std).astype(np.float32)
        return clip_to_limit(shown, self.observation_limit)

    def rewards(self, raw: np.ndarray) -> np.ndarray:
        """Scale rewards of any shape, in float32."""
        with np.errstate(over="ignore"):
            shown = np.asarray(np.asarray(raw, np.float32) / np.float32(self.reward_scale))
        return clip_to_limit(shown, self.reward_limit)

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """Scale the environment's actions (..., A) to [-1, 1]."""
        if self.action_center is None or self.action_half is None:
            return raw
        width = np.where(self.action_half > 0, self.action_half, np.float32(1))
        return ((raw - self.action_center) / width).astype(np.float32)

    def environment_actions(self, shown: np.ndarray) -> np.ndarray:
        """Inverse of `actions`: convert an agent's actions (..., A) to the environment's units."""
        if self.action_center is None or self.action_half is None:
            return shown
        return np.asarray(shown * self.action_half + self.action_center, np.float32)

    def shown_spec(self, spec: DataSpec) -> DataSpec:
        """`spec` with the bounds of scaled actions, from which an agent is made."""
        if self.action_center is None:
            return spec
        ones = (1.0,) * spec.action.size
        action = dataclasses.replace(spec.action, low=tuple(-one for one in ones), high=ones)
        return dataclasses.replace(spec, action=action)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        arrays = {name: getattr(self, name) for name in _SCALES_OF_COLUMNS}
        return {
            **{name: None if array is None else [float(x) for x in array] for name, array in arrays.items()},
            "reward_scale": float(self.reward_scale),
            "return_scale": float(self.return_scale),
            "observation_limit": self.observation_limit,
            "reward_limit": self.reward_limit,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Normalization":
        """The inverse of `to_json`; also reads the format of older versions."""
        arrays = {name: values.get(name) for name in _SCALES_OF_COLUMNS}
        return cls(
            **{name: None if array is None else np.asarray(array, np.float32) for name, array in arrays.items()},  # type: ignore[arg-type]
            reward_scale=values["reward_scale"],
            return_scale=values["return_scale"],
            observation_limit=values.get("observation_limit"),
            reward_limit=values.get("reward_limit"),
        )


def clip_to_limit(shown: np.ndarray, limit: float | None) -> np.ndarray:
    """Clip `shown` to -limit..limit, in place; unchanged without a limit."""
    return shown if limit is None else np.clip(shown, -limit, limit, out=shown)


_SCALES_OF_COLUMNS = ("observation_mean", "observation_std", "action_center", "action_half")
