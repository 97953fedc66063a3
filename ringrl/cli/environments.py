"""Which environment a command acts in, and its faults as one line."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import ringrl_envs
from ringrl_envs.registry import find_spec
from ringrl_envs.sync_vector import EnvironmentFault

from ringrl.config import EnvConfig
from ringrl.errors import RingRLError
from ringrl.evaluation.config import Split


def environment_of(chosen: EnvConfig, metadata: Mapping[str, Any]) -> EnvConfig:
    """The environment chosen by id, else the one that a data set's `metadata` names, with `chosen.kwargs` on top."""
    if chosen.id:
        return chosen
    if "environment" not in metadata:
        raise RingRLError("The data set names no environment: give env.id=ENVIRONMENT_ID, or choose env=NAME.")
    specification = metadata.get("environment_spec") or {}
    specification = json.loads(specification) if isinstance(specification, str) else specification
    known = {key: value for key, value in (specification.get("kwargs") or {}).items() if key != "render_mode"}
    env = EnvConfig(metadata["environment"], {**known, **chosen.kwargs})
    with environment_faults(env):
        usual = find_spec(env.id).max_episode_steps
    limit = specification.get("max_episode_steps")
    if limit is not None and limit != usual and "max_episode_steps" not in env.kwargs:
        env.kwargs["max_episode_steps"] = limit
    return env


def is_own_environment(env: EnvConfig, metadata: Mapping[str, Any]) -> bool:
    """Whether `env` is what a data set's `metadata` name, or they name none: then their reference scores apply."""
    return "environment" not in metadata or env == environment_of(EnvConfig(), metadata)


@contextlib.contextmanager
def vector_environment(env: EnvConfig, count: int, **kwargs: Any) -> Iterator[gymnasium.vector.VectorEnv]:
    """`count` copies of an environment, closed at the end; what it refuses is raised as RingRLError."""
    with environment_faults(env):
        environments = ringrl_envs.make_vector(env.id, count, **env.kwargs, **kwargs)
    try:
        yield environments
    except EnvironmentFault as error:
        raise RingRLError(str(error)) from error
    finally:
        environments.close()


def task_ids(env: EnvConfig, split: Split) -> list[int]:
    """The tasks of a split, `[0]` for an environment without tasks."""
    with environment_faults(env):
        return ringrl_envs.task_ids(env.id, split.value, **env.kwargs)


def dealt_tasks(env: EnvConfig, split: Split, count: int) -> np.ndarray:
    """(count,) tasks of a split, dealt in turn."""
    return np.resize(np.asarray(task_ids(env, split), np.int64), count)


@contextlib.contextmanager
def environment_faults(env: EnvConfig) -> Iterator[None]:
    """Turn the ValueErrors by which environments refuse an id or an argument into RingRLErrors."""
    try:
        yield
    except ValueError as error:
        raise RingRLError(f"env: {error}" if env.id in str(error) else f"env {env.id}: {error}") from error
