"""Online learning: environments are stepped while the device takes gradient steps on earlier transitions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ringrl.errors import RingRLError
from ringrl.online.actor_files import save_actor
from ringrl.online.actors import Actor, extract_actor
from ringrl.online.config import RewardKind, SacConfig
from ringrl.online.episodes import EpisodeRecorder, OnlineEpisode
from ringrl.online.replay import Replay, Transitions
from ringrl.online.sac import SacState, create_state, update
from ringrl.online.spaces import Spaces, environment_name, read_spaces

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


def learn_online(
    vector_env: "VectorEnv",
    config: SacConfig,
    *,
    steps: int,
    seed: int,
    on_episode: Callable[[OnlineEpisode], Any],
    progress: Callable[[int, int], Any] | None = None,
    task_ids: Sequence[int] | None = None,
    snapshots: str | Path | None = None,
    snapshot_every: int = 0,
    on_dropped: Callable[[int, int], Any] | None = None,
) -> SacState:
    """Learn for `steps` environment steps (of all B sub-environments together), and pass on every whole episode.

    `vector_env` is as made by `ringrl_envs.make_vector`: only the caller restarts episodes. Tasks are assigned to
    episodes in turn, from `task_ids` or else the training tasks. `on_episode` receives each episode when it ends; those
    still in progress at the end are dropped, and `on_dropped(episodes, steps)` receives their number, if any.
    `progress(steps so far, steps)` is called after every step. With `snapshots`, a folder, the actor is saved there
    every `snapshot_every` steps as actor_000012000.npz. The same arguments give the same episodes.

    Raises RingRLError for environments whose actions are not a bounded Box or whose observations are not flat, for
    invalid counts, and if learning diverges.
    """
    if steps < 1:
        raise RingRLError(f"steps={steps} must be at least 1.")
    if snapshots is not None and snapshot_every < 1:
        raise RingRLError(f"snapshot_every={snapshot_every} must be at least 1 where snapshots are saved.")
    spaces = read_spaces(vector_env)
    learner = _Learner(spaces, config, seed, capacity=max(min(config.replay_capacity, steps), vector_env.num_envs))
    episodes = _Episodes(vector_env, np.random.default_rng([seed, 1]), task_ids)
    action_rng = np.random.default_rng([seed, 2])
    every = np.ones(vector_env.num_envs, bool)
    observations, done, ended = episodes.begin(every, learner.label(0)), 0, every
    while done < steps:
        uniform = done < config.random_steps
        actions = learner.act(observations, action_rng, uniform)
        after, rewards, terminated, truncated = episodes.step(spaces.to_environment(actions), uniform, on_episode)
        done += vector_env.num_envs
        learner.learn(Transitions(observations, actions, rewards, terminated, after), done)
        if snapshots is not None and done // snapshot_every > (done - vector_env.num_envs) // snapshot_every:
            at = done // snapshot_every * snapshot_every
            save_actor(Path(snapshots) / f"actor_{at:09d}.npz", learner.newest_actor(at))
        ended, observations = terminated | truncated, after
        if ended.any() and done < steps:
            observations = episodes.begin(ended, learner.label(done))
        if progress is not None:
            progress(min(done, steps), steps)
    under_way = vector_env.num_envs - int(np.sum(ended))
    if under_way and on_dropped is not None:
        on_dropped(under_way, done - episodes.handed_over)
    return learner.state


class _Learner:
    """The replay buffer, the state, and the actor of the previous dispatch."""

    def __init__(self, spaces: Spaces, config: SacConfig, seed: int, capacity: int) -> None:
        self.state = create_state(seed, spaces.observation_size, spaces.action_size, config)
        self._spaces, self._config = spaces, config
        self._replay = Replay(capacity, spaces.observation_size, spaces.action_size)
        self._rng = np.random.default_rng([seed, 0])
        self._owed = 0.0  # gradient steps due
        self._actor = extract_actor(self.state, spaces, self.label(0))

    def label(self, step: int) -> str:
        return f"{'rnd' if self._config.reward == RewardKind.rnd else 'sac'}(step={step})"

    def act(self, observations: np.ndarray, rng: np.random.Generator, uniform: bool) -> np.ndarray:
        """Actions (B, A) in [-1, 1]."""
        if uniform:
            return rng.uniform(-1.0, 1.0, (len(observations), self._spaces.action_size)).astype(np.float32)
        return self._actor.act(observations, rng)

    def learn(self, seen: Transitions, step: int) -> None:
        """Add a step of every sub-environment to the replay buffer; dispatch the due gradient steps without waiting."""
        self._replay.add(seen)
        if step <= self._config.random_steps:
            return
        config, calls = self._config, self._config.updates_per_call
        self._owed += len(seen.rewards) * config.updates_per_step
        while self._owed >= calls:
            self._owed -= calls
            # Waits for the previous dispatch, whose actor acts while the next one runs.
            self._actor = self.newest_actor(step)
            batches = self._replay.sample(self._rng, calls, config.batch_size)
            self.state, _ = update(self.state, batches, config)

    def newest_actor(self, step: int) -> Actor:
        return extract_actor(self.state, self._spaces, self.label(step))


class _Episodes:
    """The sub-environments and the records of their episodes."""

    def __init__(self, vector_env: "VectorEnv", rng: np.random.Generator, task_ids: Sequence[int] | None) -> None:
        split = getattr(vector_env, "task_split", None)
        training = [0] if split is None else split.ids("training")
        self._env, self._rng = vector_env, rng
        self._tasks = np.asarray(training if task_ids is None else task_ids, np.int64)
        if not len(self._tasks):
            raise RingRLError("task_ids is empty: name at least one task to learn.")
        self._recorder = EpisodeRecorder(vector_env)
        self._begun = 0
        self.handed_over = 0  # steps of completed episodes

    def begin(self, mask: np.ndarray, policy: str) -> np.ndarray:
        """Start episodes where `mask` (B,) is True; observations (B, O) of all."""
        order = self._begun + np.cumsum(mask) - 1
        self._begun += int(mask.sum())
        tasks = self._tasks[order % len(self._tasks)]
        seeds: Any = [int(seed) for seed in self._rng.integers(2**31, size=len(mask))]
        options = {"reset_mask": mask, "task_id": tasks}
        observations, _ = self._env.reset(seed=seeds, options=options)
        for index in np.flatnonzero(mask):
            self._recorder.begin(
                int(index), observations[index], policy=policy, seed=seeds[index], task_id=int(tasks[index])
            )
        return observations

    def step(
        self, actions: np.ndarray, uniform: bool, on_episode: Callable[[OnlineEpisode], Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step the environments, and pass on ended episodes.

        Returns observations (B, O), rewards, terminated and truncated (B,).
        """
        observations, rewards, terminated, truncated, _ = self._env.step(actions)
        if not all((np.abs(values) <= np.finfo(np.float32).max).all() for values in (observations, rewards)):
            name = environment_name(self._env)
            raise RingRLError(
                f"{name}: an observation or reward is not finite in float32, so nothing can be learned from it."
            )
        for episode in self._recorder.step(actions, observations, rewards, terminated, truncated, uniform=uniform):
            self.handed_over += len(episode.rewards)
            on_episode(episode)
        return observations, rewards, terminated, truncated
