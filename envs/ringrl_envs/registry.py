"""Registering, making and naming environments: every gymnasium id works, with flat observations.

Where an id is taken, a gymnasium `EnvSpec` is as well: its environment is made whole, wrappers included.
"""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ringrl_envs.d4rl.registration import register_d4rl
from ringrl_envs.dmc import catalogue
from ringrl_envs.flatten import FlattenGoalDict, is_flat
from ringrl_envs.modules import import_environment_module, load_attribute
from ringrl_envs.recorded import UnbuildableWrapperError, load_wrapper
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


def bare_id(env_id: str) -> str:
    """`ID` of `MODULE:ID`."""
    return env_id.rpartition(":")[2]


def registered_spec(env_id: str) -> EnvSpec | None:
    """What is registered under an id, `module:id` included; None where nothing is.

    Raises:
        ValueError: the module cannot be imported.
    """
    register_own()
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            import_environment_module(module)
        except ValueError as error:
            raise ValueError(f"Environment {env_id!r}: {error}") from error
    if name not in gymnasium.registry:
        register()
    return gymnasium.registry.get(name)


def find_spec(env_id: str) -> EnvSpec:
    """gymnasium's specification of an id, `module:id` included.

    Raises:
        ValueError: no such id; the line names the nearest ones.
    """
    found = registered_spec(env_id)
    if found is not None:
        return found
    name = bare_id(env_id)
    near = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.5)
    remedy = f"did you mean {', '.join(near)}?" if near else "python -m gymnasium lists none like it."
    if not has_robotics():
        remedy += f" (Mazes, Kitchen and Adroit need: {INSTALL}.)"
    raise ValueError(f"Unknown environment {env_id!r}: {remedy}")


def with_arguments(spec: EnvSpec, arguments: Mapping[str, Any]) -> EnvSpec:
    """The specification with other arguments; `max_episode_steps` is one, -1 for none, as in `gymnasium.make`."""
    kwargs = {**spec.kwargs, **arguments}
    limit = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return dataclasses.replace(spec, kwargs=kwargs, max_episode_steps=None if limit == -1 else limit)


def make(environment: str | EnvSpec, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """One environment with flat float32 observations (O,).

    Raises:
        ValueError: unknown id, arguments that the environment does not take, or a wrapper that cannot be rebuilt.
    """
    spec = _spec_of(environment, kwargs)
    if render_mode is not None:  # some environments do not take the argument at all
        spec = dataclasses.replace(spec, kwargs={**spec.kwargs, "render_mode": render_mode})
    with _one_line_errors(spec.id):
        env = _make_bare(spec)
        for wrapper in spec.additional_wrappers[len(_wrappers_of(env)) :]:
            env = _wrapped(env, wrapper)
        return env if is_flat(env.observation_space) else FlattenGoalDict(env)


def unbuildable_wrappers(spec: EnvSpec) -> list[UnbuildableWrapperError]:
    """What keeps wrappers of a specification from being rebuilt, without building any.

    Those that the entry point itself puts on need nothing recorded.
    """
    faults: dict[int, UnbuildableWrapperError] = {}
    for index, wrapper in enumerate(spec.additional_wrappers):
        try:
            load_wrapper(wrapper)
        except UnbuildableWrapperError as error:
            faults[index] = error
    if not faults:
        return []
    with _one_line_errors(spec.id):
        env = _make_bare(spec)
    own = len(_wrappers_of(env))
    env.close()
    return [fault for index, fault in faults.items() if index >= own]


def make_vector(environment: str | EnvSpec, num_envs: int, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """`num_envs` environments with flat observations (num_envs, O), which only the caller restarts.

    `reset(options={"reset_mask": (num_envs,) bool, "task_id": id or ids})` restarts the masked ones (all without a
    mask); tasks stay until set again. A finished sub-environment may be stepped on: it stays as it is, reward 0.
    The environment's own fast form where this package has one, else one after the other.

    Raises:
        ValueError: unknown id, arguments that the environment does not take, or a wrapper that cannot be rebuilt.
    """
    spec = _spec_of(environment, kwargs)
    if num_envs < 1:
        raise ValueError(f"{spec.id}: num_envs={num_envs} must be at least 1.")
    if OWN.get(spec.id) == spec.entry_point and spec.max_episode_steps is None and not spec.additional_wrappers:
        with _one_line_errors(spec.id):
            return gymnasium.make_vec(spec, num_envs, vectorization_mode="vector_entry_point")
    return DisabledSyncVectorEnv([functools.partial(make, spec)] * num_envs)


def task_split(environment: str | EnvSpec, **kwargs: Any) -> TaskSplit:
    """Training and held-out tasks of an environment made with these arguments; one task where it has none.

    An environment has tasks when its class offers `split_tasks(**kwargs) -> TaskSplit`.
    """
    spec = _spec_of(environment, kwargs)
    with _one_line_errors(spec.id):
        creator = load_attribute(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        return getattr(creator, "split_tasks", one_task)(**spec.kwargs)


def task_ids(environment: str | EnvSpec, split: str = "all", **kwargs: Any) -> list[int]:
    """Task ids of a split: training, held_out or all; [0] for an environment without tasks, whatever the split.

    Raises:
        ValueError: unknown id or split.
    """
    tasks = task_split(environment, **kwargs)
    ids = tasks.ids(split)
    return [0] if tasks == one_task() else ids


def max_episode_steps(vector_env: gymnasium.vector.VectorEnv) -> int | None:
    """Longest episode of a vector environment from `make_vector`, in decisions; None without a limit."""
    own = getattr(vector_env, "max_steps", None)
    if own is not None:
        return int(own)
    spec = vector_env.envs[0].spec if isinstance(vector_env, DisabledSyncVectorEnv) else vector_env.spec
    return None if spec is None else spec.max_episode_steps


def _spec_of(environment: str | EnvSpec, kwargs: Mapping[str, Any]) -> EnvSpec:
    return with_arguments(find_spec(environment) if isinstance(environment, str) else environment, kwargs)


def _make_bare(spec: EnvSpec) -> gymnasium.Env:
    """The environment without the wrappers of its specification, but those that its entry point puts on."""
    if isinstance(spec.entry_point, str):
        try:
            load_attribute(spec.entry_point)  # gymnasium would not look in the current folder
        except ValueError as error:
            raise ValueError(f"{spec.id}: {error}") from error
    return gymnasium.make(dataclasses.replace(spec, additional_wrappers=()), disable_env_checker=True)


def _wrappers_of(env: gymnasium.Env) -> tuple[Any, ...]:
    return () if env.spec is None else env.spec.additional_wrappers


def _wrapped(env: gymnasium.Env, wrapper: Any) -> gymnasium.Env:
    create = load_wrapper(wrapper)
    try:
        return create(env=env, **wrapper.kwargs)
    except Exception as error:  # wrappers refuse arguments and environments by all kinds of errors
        line = (str(error).splitlines() or [""])[0]
        raise UnbuildableWrapperError(wrapper, f"{type(error).__name__}: {line}") from error


@contextlib.contextmanager
def _one_line_errors(env_id: str):
    """Turn what gymnasium raises for wrong arguments or missing packages into one clear line."""
    try:
        yield
    except (TypeError, ImportError, gymnasium.error.Error) as error:
        line = (str(error) or type(error).__name__).splitlines()[0].partition(" was raised from the environment")[0]
        raise ValueError(f"{env_id}: {line}") from error
