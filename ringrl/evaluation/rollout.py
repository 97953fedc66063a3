"""Rollout of a policy for n trials in one context, over a batch of environments with episodes of different lengths."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from ringrl.errors import RingRLError
from ringrl.evaluation.actions import check_action_space, check_supported, convert_actions
from ringrl.types import DataSpec

SUCCESS_KEYS = ("success", "is_success")  # names of the success flag in an environment's `info`


class ActingPolicy(Protocol):
    """Protocol of a policy for `rollout`, acting in a batch of environments over many trials."""

    def reset(self, num_environments: int, seed: int) -> None:
        """Clear the history, for a new batch."""
        ...

    def act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Actions (B, A) or (B,), discrete ones from 0, for raw observations (B, O); inactive rows are ignored."""
        ...

    def observe(self, rewards: np.ndarray, finished: np.ndarray, active: np.ndarray) -> None:
        """Record the rewards (B,) of the last actions, and where they ended a trial (B,)."""
        ...

    @property
    def full(self) -> np.ndarray:
        """Rows (B,) in which no further trial may start."""
        ...


class FrameSink(Protocol):
    """Protocol of a receiver of the frames of environment 0, such as a video recorder."""

    def capture(self, vector_env: Any, *, trial: int, step: int, trial_return: float) -> None:
        """Called after every reset (step 0) and every step of environment 0 while it is active."""
        ...


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Results of n trials in each of B environments; NaN (length 0) for a trial that could not run."""

    trial_returns: np.ndarray  # (B, n) float64
    trial_lengths: np.ndarray  # (B, n) int64, environment steps
    trial_success: np.ndarray | None  # (B, n) float64: 1 if `info` reported success at any step; None: not reported
    task_ids: np.ndarray  # (B,) int64
    repeats: np.ndarray  # (B,) int64: index of the evaluation that a row belongs to


def rollout(
    vector_env: gymnasium.vector.VectorEnv,
    policy: ActingPolicy,
    *,
    trials: int = 8,
    task_ids: Sequence[int] | np.ndarray | None = None,
    seed: int = 10_000,
    on_progress: Callable[[int, int], None] | None = None,
    frames: FrameSink | None = None,
    trial_steps_limit: int = 100_000,
    check: Callable[[], None] | None = None,
) -> Rollout:
    """Run `trials` episodes in every environment; each environment starts its next episode independently.

    An environment idles once its trials are done or the policy's context is full.

    Args:
        vector_env: B environments of flat Box observations (O,), with autoreset mode DISABLED, as made by
            `ringrl_envs.make_vector`.
        policy: a policy from `make_policy`, or the `vector` attribute of one from `load_policy`.
        trials: episodes in one context.
        task_ids: (B,) the task of each environment; by default task 0 for all.
        seed: seed of sampled actions; environment i is seeded with `seed + i`.
        on_progress: called with the number of finished trials and their total.
        frames: receives every frame of environment 0, such as a video recorder.
        trial_steps_limit: number of steps after which a trial is considered endless.
        check: called before every step; its exceptions end the rollout.

    Returns:
        Returns, lengths in steps and successes of all trials, (B, trials).

    Raises:
        RingRLError: sizes of environment and policy differ, the environment gives a number that is not finite, or an
            episode never ends.
    """
    count = vector_env.num_envs
    task_ids = np.asarray(np.zeros(count) if task_ids is None else task_ids, np.int64)
    if task_ids.shape != (count,):
        raise RingRLError(f"{task_ids.size} task ids were given for {count} environments: give one for each.")
    if trials < 1:
        raise RingRLError(f"trials={trials}: an evaluation needs at least 1.")
    check_vector_env(vector_env, getattr(policy, "spec", None) or getattr(getattr(policy, "agent", None), "spec", None))

    returns = np.full((count, trials), np.nan)
    lengths = np.zeros((count, trials), np.int64)
    success = np.zeros((count, trials))
    success_known = False
    trial = np.zeros(count, np.int64)  # index of the current trial
    steps = np.zeros(count, np.int64)  # of the current trial
    sums = np.zeros(count)
    succeeded = np.zeros(count, bool)

    policy.reset(count, seed)
    observations, _ = vector_env.reset(seed=int(seed), options={"task_id": task_ids.copy()})
    active = ~np.asarray(policy.full, bool)
    if frames is not None and active[0]:
        frames.capture(vector_env, trial=0, step=0, trial_return=0.0)

    while active.any():
        if check is not None:
            check()
        observations = np.asarray(observations)
        _check_finite("observation", observations, active, trial, steps)
        actions = _legal_actions(vector_env, policy.act(observations, active), active, trial, steps)
        observations, rewards, terminated, truncated, infos = vector_env.step(actions)
        rewards = np.asarray(rewards, np.float64)
        ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        steps[active] += 1
        _check_finite("reward", rewards, active, trial, steps)
        sums[active] += rewards[active]
        told = read_success(infos, count)
        if told is not None:
            success_known = True
            succeeded |= told & active
        finished = ended & active
        policy.observe(np.where(active, rewards, 0.0), finished, active)
        if frames is not None and active[0]:
            frames.capture(vector_env, trial=int(trial[0]), step=int(steps[0]), trial_return=float(sums[0]))

        rows = np.flatnonzero(finished)
        returns[rows, trial[rows]] = sums[rows]
        lengths[rows, trial[rows]] = steps[rows]
        success[rows, trial[rows]] = succeeded[rows]
        trial[rows] += 1
        sums[rows], steps[rows], succeeded[rows] = 0.0, 0, False
        active = active & ~(finished & ((trial >= trials) | np.asarray(policy.full, bool)))
        if on_progress is not None and rows.size:
            on_progress(int(trial.sum()), count * trials)
        if not active.any():
            break
        if (steps >= trial_steps_limit).any():
            index = int(np.argmax(steps))
            raise RingRLError(
                f"Environment {index}, trial {trial[index]} still runs after {steps[index]} steps: "
                "give the environment a time limit (env.kwargs.max_episode_steps=N)."
            )
        if ended.any():  # idle environments too: a finished one may not be stepped
            fresh, _ = vector_env.reset(options={"reset_mask": ended.copy()})
            observations = np.where(ended[:, None], fresh, observations)
            if frames is not None and ended[0] and active[0]:
                frames.capture(vector_env, trial=int(trial[0]), step=0, trial_return=0.0)

    success = np.where(np.isnan(returns), np.nan, success)
    return Rollout(returns, lengths, success if success_known else None, task_ids, np.zeros(count, np.int64))


def join_rollouts(rollouts: Sequence[Rollout]) -> Rollout:
    """Concatenate rollouts with the same number of trials, with `repeats` numbered in the given order."""
    success = [part.trial_success for part in rollouts if part.trial_success is not None]
    return Rollout(
        np.concatenate([part.trial_returns for part in rollouts]),
        np.concatenate([part.trial_lengths for part in rollouts]),
        np.concatenate(success) if len(success) == len(rollouts) else None,
        np.concatenate([part.task_ids for part in rollouts]),
        np.concatenate([np.full(len(part.task_ids), i, np.int64) for i, part in enumerate(rollouts)]),
    )


def check_vector_env(vector_env: gymnasium.vector.VectorEnv, spec: DataSpec | None) -> None:
    """Raise a one-line error for unsupported spaces, or spaces that differ from those of the policy."""
    name = _name(vector_env)
    box, action = vector_env.single_observation_space, vector_env.single_action_space
    if not isinstance(box, gymnasium.spaces.Box) or len(box.shape) != 1:
        raise RingRLError(f"{name} gives observations of {box}: flatten them (ringrl_envs.make_vector does).")
    check_supported(name, action)
    mode = vector_env.metadata.get("autoreset_mode")
    if mode is not None and mode != gymnasium.vector.AutoresetMode.DISABLED:
        raise RingRLError(f"{name} resets itself ({mode}): make it with autoreset_mode=AutoresetMode.DISABLED.")
    if spec is None:
        return
    if box.shape[0] != spec.observation_size:
        raise RingRLError(
            f"{name} gives observations of size {box.shape[0]}, but the policy was trained on size "
            f"{spec.observation_size}: evaluate on the environment that its data came from."
        )
    check_action_space(name, action, spec.action)


def _legal_actions(
    vector_env: gymnasium.vector.VectorEnv,
    actions: np.ndarray,
    active: np.ndarray,
    trial: np.ndarray,
    steps: np.ndarray,
) -> np.ndarray:
    """Convert actions to the environment's shape, dtype and bounds; idle environments get a neutral action."""
    actions = np.asarray(actions)
    _check_finite("action", actions, active, trial, steps)
    return convert_actions(vector_env.single_action_space, actions, active)


def _check_finite(what: str, values: np.ndarray, active: np.ndarray, trial: np.ndarray, steps: np.ndarray) -> None:
    bad = active & ~np.isfinite(values).reshape(len(active), -1).all(axis=1)
    if bad.any():
        index = int(np.argmax(bad))
        remedy = "the policy has diverged" if what == "action" else "look for a fault in the environment"
        raise RingRLError(
            f"The {what} is not finite in environment {index}, trial {trial[index]}, step {steps[index]}: {remedy}."
        )


def read_success(infos: dict[str, Any], count: int) -> np.ndarray | None:
    """(B,) bool of this step's successes, or None if `info` contains no success flag.

    Only environments that report a single number, bare or in an array, are considered.
    """
    for key in SUCCESS_KEYS:
        if key in infos:
            told, values = np.asarray(infos.get(f"_{key}", np.ones(count, bool)), bool), infos[key]
            if isinstance(values, np.ndarray) and values.shape == (count,) and values.dtype.kind in "biuf":
                return told & (np.nan_to_num(values) != 0)
            known = [_flag(values[row]) if told[row] and not isinstance(values, dict) else None for row in range(count)]
            return np.array([flag is True for flag in known]) if known.count(None) < count else None
    return None


def _flag(value: Any) -> bool | None:
    """Whether a single number is not 0; None for anything else."""
    try:
        number = float(np.asarray(value).reshape(()).item())
    except (TypeError, ValueError):
        return None
    return None if isinstance(value, str | bytes) or number != number else number != 0


def _name(vector_env: gymnasium.vector.VectorEnv) -> str:
    spec = getattr(vector_env, "spec", None) or getattr(next(iter(getattr(vector_env, "envs", ())), None), "spec", None)
    return spec.id if spec is not None else type(vector_env).__name__
