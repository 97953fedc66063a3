"""Collecting episodes from a vector environment with a mix of behaviors, all in memory."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from ringrl_envs.controllers.graded import Behaviour

FIRST_CAPACITY = 64


@dataclasses.dataclass(frozen=True)
class Episode:
    """One whole episode of T steps; `observations` has the last one too."""

    observations: np.ndarray  # (T + 1, O) float32
    actions: np.ndarray  # (T, A), or (T,) int64 when discrete
    rewards: np.ndarray  # (T,) float64
    terminations: np.ndarray  # (T,) bool
    truncations: np.ndarray  # (T,) bool
    task_id: int
    policy: str  # such as "scripted(q=0.63)"
    seed: int  # what the environment was reset with
    physics: np.ndarray | None = None  # (T + 1, D) float64, the simulator's state at each observation, if recorded


class _Plan(NamedTuple):
    """One row per episode to collect."""

    task_ids: np.ndarray
    behaviours: np.ndarray
    seeds: np.ndarray


def collect_episodes(
    vector_env: VectorEnv,
    behaviours: Sequence[tuple[str, float, Behaviour]],
    *,
    episodes_per_task: int | None = None,
    total_episodes: int | None = None,
    task_ids: Sequence[int] | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    record_physics: bool = False,
    longest: int | None = None,
) -> list[Episode]:
    """Episodes from `behaviours`, a list of (name, weight, behavior), in an order fixed by the seed.

    Give `episodes_per_task`, or `total_episodes` dealt over the tasks in turn; `task_ids` defaults to the training
    tasks. Tasks, behaviors (in proportion to the weights) and seeds are dealt out beforehand and every episode that
    is begun is finished, so short episodes are not favored. `on_progress(steps, episodes)` is called after each
    step of the environment. The same arguments and number of sub-environments give the same episodes.
    `record_physics` keeps the states of simulators that tell them by `physics_state()`, as dm_control's do here.

    Raises:
        ValueError: counts, weights or tasks that make no sense, no physics to record, an episode of more than `longest`
            steps, and observations or rewards that are not finite in float32, in which they are kept.
    """
    sources = _physics_sources(vector_env) if record_physics else []
    plan = _plan(vector_env, behaviours, episodes_per_task, total_episodes, task_ids, seed)
    rng = np.random.default_rng([seed, 1])
    return _Collector(vector_env, behaviours, plan, rng, sources, longest).run(on_progress)


def _an_action(space: gymnasium.Space) -> Any:
    """An action that the space contains: the first of a Discrete, in a Box what is nearest to 0."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    return getattr(space, "start", 0)


def _physics_sources(vector_env: VectorEnv) -> list[Callable[[], np.ndarray]]:
    """What tells the state (D,) of each sub-environment's simulator."""
    environments = [env.unwrapped for env in getattr(vector_env, "envs", ())]
    if not environments or not all(hasattr(env, "physics_state") for env in environments):
        raise ValueError(f"{_name(vector_env)} has no physics to record: only ringrl/dmc_* environments do.")
    return [env.physics_state for env in environments]


def _name(vector_env: VectorEnv) -> str:
    one = next(iter(getattr(vector_env, "envs", ())), vector_env)
    return one.spec.id if one.spec is not None else type(one.unwrapped).__name__


def _plan(
    vector_env: VectorEnv,
    behaviours: Sequence[tuple[str, float, Behaviour]],
    episodes_per_task: int | None,
    total_episodes: int | None,
    task_ids: Sequence[int] | None,
    seed: int,
) -> _Plan:
    weights = np.array([weight for _, weight, _ in behaviours], np.float64)
    if not len(weights) or (weights < 0).any() or not np.isfinite(weights).all() or weights.sum() <= 0:
        raise ValueError("collecting needs behaviors with weights of at least 0 that do not sum to 0.")
    if (episodes_per_task is None) == (total_episodes is None):
        raise ValueError("give either episodes_per_task or total_episodes.")
    split = getattr(vector_env, "task_split", None)
    if task_ids is None:
        task_ids = split.ids("training") if split is not None else [0]
    tasks = np.asarray(task_ids, np.int64)
    if not len(tasks):
        raise ValueError("no tasks to collect from.")
    total = total_episodes if total_episodes is not None else (episodes_per_task or 0) * len(tasks)
    if total < 1:
        raise ValueError(f"{total} episodes asked for: at least 1 is needed.")
    rng = np.random.default_rng([seed, 0])
    cumulated = np.round(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    dealt = np.repeat(np.arange(len(weights)), np.diff(cumulated, prepend=0))
    return _Plan(
        np.resize(tasks, total),
        rng.permutation(dealt),
        rng.integers(2**31, size=total),
    )


class _Collector:
    """The state of one collection: which episode every sub-environment is in, and its steps so far."""

    def __init__(
        self,
        vector_env: VectorEnv,
        behaviours: Sequence[tuple[str, float, Behaviour]],
        plan: _Plan,
        rng: np.random.Generator,
        physics_sources: list[Callable[[], np.ndarray]],
        longest: int | None,
    ) -> None:
        self.env, self.behaviours, self.plan, self.rng = vector_env, behaviours, plan, rng
        self.physics_sources, self.longest = physics_sources, longest
        count = vector_env.num_envs
        self.every = np.arange(count)
        self.episode = np.full(count, -1)  # which row of the plan; -1 when idle
        self.owner = np.full(count, -1)  # which behavior
        self.length = np.zeros(count, np.int64)
        self.labels = [""] * count
        self.begun = 0
        self.done: dict[int, Episode] = {}
        self.columns: dict[str, np.ndarray] = {}

    def run(self, on_progress: Callable[[int, int], None] | None) -> list[Episode]:
        total = len(self.plan.task_ids)
        observations = self._begin(self.every < total)
        steps = 0
        while len(self.done) < total:
            active = self.episode >= 0
            actions = self._act(observations, active)
            before = {"observations": observations, **self._physics()}
            after, rewards, terminations, truncations, _ = self.env.step(actions)
            ended = {"terminations": terminations, "truncations": truncations}
            self._check(after, rewards, active)
            self._record({**before, "actions": actions, "rewards": rewards, **ended})
            finished = active & (terminations | truncations)
            for index, (_, _, behaviour) in enumerate(self.behaviours):
                observe = getattr(behaviour, "observe", None)
                if observe is not None:
                    observe(rewards, finished, active & (self.owner == index))
            self.length[active] += 1
            steps += int(active.sum())
            observations = after
            if finished.any():
                self._finish(finished, {"observations": after, **self._physics()})
                waiting = np.flatnonzero(finished)[: total - self.begun]
                observations = self._begin(np.isin(self.every, waiting)) if len(waiting) else after
            if on_progress is not None:
                on_progress(steps, len(self.done))
        return [self.done[index] for index in range(total)]

    def _begin(self, mask: np.ndarray) -> np.ndarray:
        """Start the plan's next episodes in the masked sub-environments; observations of all."""
        rows = self.begun + np.arange(int(mask.sum()))
        self.begun += len(rows)
        self.episode[mask], self.owner[mask], self.length[mask] = rows, self.plan.behaviours[rows], 0
        # Idle sub-environments start too, the first time, because they are stepped along with the others.
        reset = np.ones_like(mask) if self.begun == len(rows) else mask
        chosen = np.maximum(self.episode, 0)
        seeds: Any = [int(value) for value in self.plan.seeds[chosen]]
        options = {"reset_mask": reset, "task_id": self.plan.task_ids[chosen]}
        observations, _ = self.env.reset(seed=seeds, options=options)
        self._check(observations, np.zeros(len(mask)), mask)
        for index, (name, _, behaviour) in enumerate(self.behaviours):
            mine = mask & (self.owner == index)
            if not mine.any():
                continue
            behaviour.reset(mine, self.rng)
            labels = behaviour.labels() if hasattr(behaviour, "labels") else None  # pyright: ignore
            for i in np.flatnonzero(mine):
                self.labels[i] = name if labels is None else labels[i]
        return observations

    def _check(self, observations: np.ndarray, rewards: np.ndarray, active: np.ndarray) -> None:
        """Raise ValueError for what no data set can hold, and for an episode that goes on for too long."""
        for what, values in (("observation", observations), ("reward", rewards)):
            within = np.abs(values.reshape(len(active), -1)) <= np.finfo(np.float32).max  # False for what is no number
            wrong = active & ~within.all(axis=1)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise ValueError(
                    f"{_name(self.env)}: the {what} after step {self.length[row]} of an episode is not finite in "
                    "float32, in which data are kept: scale it in the environment, or repair it."
                )
        if self.longest is not None and (active & (self.length >= self.longest)).any():
            raise ValueError(
                f"{_name(self.env)}: an episode still runs after {self.longest} steps, and no time limit is known: end "
                "episodes by env.kwargs.max_episode_steps=N, or allow longer ones by longest_episode=N."
            )

    def _act(self, observations: np.ndarray, active: np.ndarray) -> np.ndarray:
        actions = None
        for index, (_, _, behaviour) in enumerate(self.behaviours):
            mine = active & (self.owner == index)
            if not mine.any():
                continue
            own = np.asarray(behaviour.act(observations, self.rng))
            actions = np.zeros_like(own) if actions is None else actions
            actions[mine] = own[mine]
        assert actions is not None, "an unfinished episode has a behavior"
        actions[~active] = _an_action(self.env.single_action_space)  # an idle environment is stepped along
        return actions

    def _physics(self) -> dict[str, np.ndarray]:
        """States (B, D) of the sub-environments' simulators, where they are recorded."""
        return {"physics": np.stack([state() for state in self.physics_sources])} if self.physics_sources else {}

    def _record(self, step: dict[str, np.ndarray]) -> None:
        """Write this step of every sub-environment at its own place in the columns, (capacity, B, ...)."""
        for name, values in step.items():
            column = self.columns.get(name)
            if column is None:
                column = np.zeros((FIRST_CAPACITY, *values.shape), values.dtype)
            if self.length.max() >= len(column):
                column = np.concatenate([column, np.zeros_like(column)])
            column[self.length, self.every] = values
            self.columns[name] = column

    def _finish(self, finished: np.ndarray, last: dict[str, np.ndarray]) -> None:
        for i in np.flatnonzero(finished):
            row, length = int(self.episode[i]), int(self.length[i])
            to_go = np.cumsum(self.columns["rewards"][:length, i][::-1], dtype=np.float64)
            if not (np.abs(to_go) <= np.finfo(np.float32).max).all():
                raise ValueError(f"{_name(self.env)}: the rewards of an episode add up beyond float32: scale them.")
            steps = {name: column[:length, i].copy() for name, column in self.columns.items()}
            for name, values in last.items():
                steps[name] = np.concatenate([steps[name], values[i : i + 1]])
            self.done[row] = Episode(
                **steps, task_id=int(self.plan.task_ids[row]), policy=self.labels[i], seed=int(self.plan.seeds[row])
            )
        self.episode[finished] = -1
        self.owner[finished] = -1
