"""Registering, making and naming environments: every gymnasium id works, with flat observations."""

import contextlib
import difflib
import functools
import importlib
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from ringrl_envs.d4rl.registration import register_d4rl
from ringrl_envs.dmc import catalogue
from ringrl_envs.flatten import FlattenGoalDict, is_flat
from ringrl_envs.robotics import INSTALL, has_robotics, robotics_module
from ringrl_envs.sync_vector import DisabledSyncVectorEnv
from ringrl_envs.tasks import TaskSplit, one_task

OWN = {
    "ringrl/DarkRoom-v0": "ringrl_envs.dark_room:DarkRoom",
    "ringrl/DarkKeyToDoor-v0": "ringrl_envs.dark_key_to_door:DarkKeyToDoor",
    "ringrl/HiddenGoalPointMaze-v0": "ringrl_envs.hidden_goal_point_maze:HiddenGoalPointMaze",
}


def register_own() -> None:
    """Register this package's environments with gymnasium; once is enough, again is harmless."""
    register_d4rl()
    for env_id, entry_point in OWN.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point, vector_entry_point=f"{entry_point}Vector")
    for task in catalogue.dmc_tasks():
        if (env_id := catalogue.dmc_id(task)) not in gymnasium.registry:
            steps = catalogue.max_steps(task)
            gymnasium.register(env_id, catalogue.ENTRY_POINT, kwargs={"task": task}, max_episode_steps=steps)


def register() -> None:
    """Register this package's environments, and gymnasium-robotics' where it is installed."""
    register_own()
    if has_robotics():
        robotics_module()


def find_spec(env_id: str) -> EnvSpec:
    """gymnasium's specification of an id, `module:id` included.

    Raises:
        ValueError: no such id; the line names the nearest ones.
    """
    register_own()
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"Environment {env_id!r}: cannot import {module!r} ({error}).") from error
    if name not in gymnasium.registry:
        register()
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    near = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.5)
    remedy = f"did you mean {', '.join(near)}?" if near else "python -m gymnasium lists none like it."
    if not has_robotics():
        remedy += f" (Mazes, Kitchen and Adroit need: {INSTALL}.)"
    raise ValueError(f"Unknown environment {env_id!r}: {remedy}")


def make(env_id: str, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """One environment with flat float32 observations (O,).

    Raises:
        ValueError: unknown id, or arguments that the environment does not take.
    """
    spec = find_spec(env_id)
    if render_mode is not None:  # some environments do not take the argument at all
        kwargs["render_mode"] = render_mode
    with _one_line_errors(env_id):
        env = gymnasium.make(spec, disable_env_checker=True, **kwargs)
        return env if is_flat(env.observation_space) else FlattenGoalDict(env)


def make_vector(env_id: str, num_envs: int, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """`num_envs` environments with flat observations (num_envs, O), which only the caller restarts.

    `reset(options={"reset_mask": (num_envs,) bool, "task_id": id or ids})` restarts the masked ones (all without a
    mask); tasks stay until set again. A finished sub-environment may be stepped on: it stays as it is, reward 0.
    The environment's own fast form where this package has one, else one after the other.

    Raises:
        ValueError: unknown id, or arguments that the environment does not take.
    """
    spec = find_spec(env_id)
    if num_envs < 1:
        raise ValueError(f"{env_id}: num_envs={num_envs} must be at least 1.")
    if spec.id in OWN:
        with _one_line_errors(env_id):
            return gymnasium.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    return DisabledSyncVectorEnv([functools.partial(make, env_id, **kwargs)] * num_envs)


def task_split(env_id: str, **kwargs: Any) -> TaskSplit:
    """Training and held-out tasks of an environment made with these arguments; one task where it has none.

    An environment has tasks when its class offers `split_tasks(**kwargs) -> TaskSplit`.
    """
    spec = find_spec(env_id)
    entry_point = spec.entry_point
    with _one_line_errors(env_id):
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        return getattr(creator, "split_tasks", one_task)(**{**spec.kwargs, **kwargs})


def task_ids(env_id: str, split: str = "all", **kwargs: Any) -> list[int]:
    """Task ids of a split: training, held_out or all; [0] for an environment without tasks, whatever the split.

    Raises:
        ValueError: unknown id or split.
    """
    tasks = task_split(env_id, **kwargs)
    ids = tasks.ids(split)
    return [0] if tasks == one_task() else ids


def max_episode_steps(vector_env: gymnasium.vector.VectorEnv) -> int | None:
    """Longest episode of a vector environment from `make_vector`, in decisions; None without a limit."""
    own = getattr(vector_env, "max_steps", None)
    if own is not None:
        return int(own)
    spec = vector_env.envs[0].spec if isinstance(vector_env, DisabledSyncVectorEnv) else vector_env.spec
    return None if spec is None else spec.max_episode_steps


@contextlib.contextmanager
def _one_line_errors(env_id: str):
    """Turn what gymnasium raises for wrong arguments or missing packages into one clear line."""
    try:
        yield
    except (TypeError, ImportError, gymnasium.error.Error) as error:
        line = (str(error) or type(error).__name__).splitlines()[0].partition(" was raised from the environment")[0]
        raise ValueError(f"{env_id}: {line}") from error
