"""Validity rules for episodes: fast vectorized tests of many episodes, and the error for the first invalid one."""

from typing import Any

import numpy as np

from ringrl.data.store_format import step_columns
from ringrl.errors import RingRLError
from ringrl.types import ActionKind, ActionSpec

BOUND_TOLERANCE = 1e-3  # of the range of an action dimension: tolerated excess by rounding, which is clipped
_TOGETHER = 64  # rows compared at a time: NumPy is slow along rows of a few numbers


class EpisodeRules:
    """Shapes, dtypes and bounds of the arrays of one store's episodes."""

    def __init__(self, observation_size: int, action: ActionSpec) -> None:
        self.observation_size, self.action = observation_size, action
        self.action_dtype, self.action_shape = step_columns(observation_size, action)["actions"]
        low, high = np.asarray(action.low, np.float64), np.asarray(action.high, np.float64)
        with np.errstate(invalid="ignore"):
            slack = np.where(np.isfinite(high - low), BOUND_TOLERANCE * (high - low), 0.0)
        self.low, self.high = low, high
        self.bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
        self._least, self._most = low - slack, high + slack

    def numbers(self, name: str, observations: Any, actions: Any, rewards: Any) -> tuple[np.ndarray, ...]:
        """The three as arrays: observations and rewards in float32 (infinite beyond its range), actions unchanged."""
        fields = {"observations": observations, "actions": actions, "rewards": rewards}
        arrays = []
        for field, given in fields.items():
            try:
                values = np.asarray(given)
            except ValueError as error:
                raise RingRLError(f"{name}: {field} are no array of numbers ({error}).") from error
            if values.dtype.kind not in "biuf" or not values.ndim:
                raise RingRLError(f"{name}: {field} are {values.dtype} of shape {values.shape}, not rows of numbers.")
            with np.errstate(over="ignore"):
                arrays.append(values if field == "actions" else np.asarray(values, np.float32))
        return tuple(arrays)

    def hold(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> bool:
        """Whether all these steps of whole episodes are valid."""
        steps = len(rewards)
        shapes = (observations.shape, actions.shape, rewards.shape)
        if shapes != ((steps, self.observation_size), (steps, *self.action_shape), (steps,)) or not steps:
            return False
        return bool(np.isfinite(rewards).all() and np.isfinite(observations).all() and self._allows(actions))

    def check(self, name: str, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Raise `RingRLError` for the first violation in episode `name`: a shape, or a value with field and step."""
        self._check_shapes(name, observations, actions, rewards)
        fields = {"observations": observations[: len(rewards)], "actions": actions, "rewards": rewards}
        for field, values in fields.items():
            finite = np.isfinite(values)
            if not finite.all():
                where = np.argwhere(~finite)[0]
                raise RingRLError(
                    f"{name}, step {where[0]}: {field} holds {values[tuple(where)]}; repair or leave out that episode."
                )
        self._check_actions(name, actions)

    def stored(self, actions: np.ndarray) -> np.ndarray:
        """Valid actions clipped to their bounds, in the dtype of their column."""
        if self.action.kind is ActionKind.continuous:
            low, high = column_range(actions)
            if (low < self.low).any() or (high > self.high).any():
                # Not `clip`, which may turn -0.0 into a bound of 0.0, and only if another action is out of bounds.
                actions = np.where(actions < self.low, self.low, np.where(actions > self.high, self.high, actions))
        return actions.astype(self.action_dtype, copy=False)

    def _allows(self, actions: np.ndarray) -> bool:
        low, high = column_range(actions)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return False
        if self.action.kind is ActionKind.discrete:
            whole = actions.dtype.kind != "f" or bool((actions == np.floor(actions)).all())
            return whole and bool(low >= 0 and high < self.action.size)
        return bool((low >= self._least).all() and (high <= self._most).all())

    def _check_shapes(self, name: str, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        steps = len(rewards)
        if not steps or rewards.ndim != 1:
            raise RingRLError(f"{name}: rewards have shape {rewards.shape}, expected (steps,) with steps >= 1.")
        if observations.ndim != 2 or observations.shape[1] != self.observation_size:
            expected = f"expected (steps, {self.observation_size})"
            raise RingRLError(f"{name}: observations have shape {observations.shape}, {expected}.")
        if len(observations) not in (steps, steps + 1) or len(actions) != steps:
            raise RingRLError(
                f"{name}: {len(observations)} observations, {len(actions)} actions and {steps} rewards; "
                "an episode has one action a reward, and as many observations or one more."
            )
        if actions.shape[1:] != self.action_shape:
            raise RingRLError(f"{name}: actions have shape {actions.shape}, expected {(steps, *self.action_shape)}.")

    def _check_actions(self, name: str, actions: np.ndarray) -> None:
        if self.action.kind is ActionKind.discrete:
            wrong = (actions < 0) | (actions >= self.action.size) | (actions != np.floor(actions))
            if wrong.any():
                step = int(np.argmax(wrong))
                raise RingRLError(
                    f"{name}, step {step}: action {actions[step]} is not one of 0..{self.action.size - 1}."
                )
            return
        outside = (actions < self._least) | (actions > self._most)
        if outside.any():
            step, dimension = np.argwhere(outside)[0]
            raise RingRLError(
                f"{name}, step {step}: action {actions[step, dimension]:.6g} in dimension {dimension} is outside "
                f"its bounds [{self.low[dimension]:g}, {self.high[dimension]:g}]; clip or rescale the actions."
            )


def column_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of each column over the rows of (T, ...), in float64; NaN if any value is."""
    rows, row = len(values), values.shape[1:]
    if rows < 8 * _TOGETHER or not row:
        return values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
    whole = rows - rows % _TOGETHER
    many = np.ascontiguousarray(values[:whole]).reshape(whole // _TOGETHER, _TOGETHER * int(np.prod(row)))
    found = []
    for extreme in (np.minimum, np.maximum):
        folded = extreme.reduce(many, axis=0).reshape(_TOGETHER, *row)
        found.append(extreme.reduce(np.concatenate([folded, values[whole:]]), axis=0).astype(np.float64))
    return found[0], found[1]
