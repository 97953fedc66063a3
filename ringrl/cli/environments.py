"""Selection of a command's environment, and its errors as one line."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import ringrl_envs
from gymnasium.envs.registration import EnvSpec
from ringrl_envs.recorded import has_running_statistics, is_same_environment, record_of, recordable, spec_from_record
from ringrl_envs.registry import bare_id, find_spec, registered_spec, unbuildable_wrappers, with_arguments
from ringrl_envs.sync_vector import EnvironmentFault

from ringrl.config import EnvConfig
from ringrl.errors import RingRLError
from ringrl.evaluation.config import Split

NAME_IT = "give env.id=MODULE:ID, where importing MODULE registers ID"


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment to act in: its name, and gymnasium's full specification of it."""

    id: str  # ID, or MODULE:ID
    spec: EnvSpec

    def record(self) -> dict[str, Any]:
        """The JSON stored in a checkpoint; `find_environment` reads it, as it does a data set's metadata."""
        record = record_of(self.spec)
        return {"environment": {"id": self.id, "kwargs": record["kwargs"]}, "environment_spec": record}


def find_environment(
    chosen: EnvConfig, metadata: Mapping[str, Any], warn: Callable[[str], None] = lambda line: None
) -> Environment:
    """The environment selected by id, else the one recorded in `metadata` of a data set or a checkpoint.

    If both have the same id, it is made as recorded, with arguments, time limit and wrappers; `chosen.kwargs` override
    the arguments.

    Args:
        chosen: the user's choice; an empty id selects the environment in `metadata`.
        metadata: has `environment`, an id or {"id": ..., "kwargs": ...}, and `environment_spec`, its record.
        warn: called with one line for each recorded wrapper that is omitted, which happens only if the user names the
            id.

    Raises:
        RingRLError: there is no such environment, or it cannot be made as recorded.
    """
    recorded = _read_record(metadata)
    if recorded is None or (chosen.id and bare_id(chosen.id) != bare_id(recorded[0])):
        if not chosen.id:
            raise RingRLError("The data set names no environment: give env.id=ENVIRONMENT_ID, or choose env=NAME.")
        return _named(chosen)
    name, record = recorded
    name = chosen.id if ":" in chosen.id else name
    spec = with_arguments(_from_record(name, record, by_name=":" in chosen.id), chosen.kwargs)
    return Environment(name, _with_buildable_wrappers(spec, named=bool(chosen.id), warn=warn))


def is_own_environment(env: Environment, metadata: Mapping[str, Any]) -> bool:
    """Whether `env` is the one in `metadata`, or there is none in them: then their reference scores apply."""
    recorded = _read_record(metadata)
    if recorded is None:
        return True
    name, record = recorded
    if bare_id(env.id) != bare_id(name):
        return False
    by_name = ":" in env.id
    return is_same_environment(env.spec, _from_record(env.id if by_name else name, record, by_name=by_name))


def environment_metadata(env: EnvConfig) -> dict[str, Any]:
    """The metadata of a data set collected in `env`, as `write_minari_dataset` takes them."""
    with environment_faults(env):
        made = ringrl_envs.make(_find_spec(env))
    spec = made.spec
    made.close()
    if spec is None:
        return {"environment_name": env.id}
    plain, lost = recordable(spec)
    return {"env_spec": plain, "environment_name": env.id, "environment_unrecorded": lost}


def describe_requirements(env: EnvConfig, metadata: Mapping[str, Any]) -> str:
    """Settings that training on a set with this `environment_metadata` requires, as a line; empty if there are none."""
    lost = metadata.get("environment_unrecorded")
    if not lost or ":" in env.id:
        return ""
    return f"  its environment:  {', '.join(lost)} could not be recorded; to train, {NAME_IT}\n"


@contextlib.contextmanager
def vector_environment(env: Environment | EnvConfig, count: int, **kwargs: Any) -> Iterator[gymnasium.vector.VectorEnv]:
    """Context of `count` copies of an environment, closed at the end; its errors are raised as RingRLError."""
    with environment_faults(env):
        environments = ringrl_envs.make_vector(_find_spec(env), count, **kwargs)
    try:
        yield environments
    except EnvironmentFault as error:
        raise RingRLError(f"env {error} (--debug shows where)") from error
    finally:
        environments.close()


def task_ids(env: Environment | EnvConfig, split: Split) -> list[int]:
    """The tasks of a split, `[0]` for an environment without tasks."""
    with environment_faults(env):
        return ringrl_envs.task_ids(_find_spec(env), split.value)


def assign_tasks(env: Environment | EnvConfig, split: Split, count: int) -> np.ndarray:
    """Assign `count` environments to the tasks of a split in turn; raises RingRLError if the split is empty."""
    tasks = task_ids(env, split)
    if not tasks:
        raise RingRLError(f"env {env.id} has no {split} tasks: set evaluation.split=training, or give it more tasks.")
    return np.resize(np.asarray(tasks, np.int64), count)


@contextlib.contextmanager
def environment_faults(env: Environment | EnvConfig) -> Iterator[None]:
    """Turn the ValueErrors by which environments reject an id or an argument into RingRLErrors."""
    try:
        yield
    except ValueError as error:
        raise RingRLError(f"env: {error}" if env.id in str(error) else f"env {env.id}: {error}") from error


def _named(env: EnvConfig) -> Environment:
    with environment_faults(env):
        return Environment(env.id, with_arguments(find_spec(env.id), env.kwargs))


def _find_spec(env: Environment | EnvConfig) -> EnvSpec:
    return (env if isinstance(env, Environment) else _named(env)).spec


def _read_record(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The name and the record in metadata; None if they have no environment."""
    told = metadata.get("environment")
    if not told:
        return None
    record = metadata.get("environment_spec") or {}
    record = json.loads(record) if isinstance(record, str) else dict(record)
    if isinstance(told, Mapping):  # a checkpoint's; of an earlier version without a record
        record = record or {"kwargs": dict(told.get("kwargs") or {})}
        told = told["id"]
    return str(told), record | {"id": bare_id(str(told))}


def _from_record(name: str, record: Mapping[str, Any], *, by_name: bool) -> EnvSpec:
    """Make the recorded environment; with `by_name`, from the entry point that the user's module registers."""
    env = EnvConfig(name)
    if by_name or not isinstance(record.get("entry_point"), str):
        with environment_faults(env):
            find_spec(name)  # its error names the nearest ids
    with environment_faults(env):
        registered = registered_spec(name)
    try:
        return spec_from_record(record, registered, prefer_registered=by_name)
    except ValueError as error:
        raise RingRLError(f"env {name}, as the data set records it: {error} To name it yourself, {NAME_IT}.") from error


def _with_buildable_wrappers(spec: EnvSpec, named: bool, warn: Callable[[str], None]) -> EnvSpec:
    """The specification, without wrappers that cannot be rebuilt if the user has named the environment."""
    with environment_faults(EnvConfig(spec.id)):
        faults = unbuildable_wrappers(spec)
    if faults and not named:
        raise RingRLError(
            f"env {spec.id} was recorded behind wrappers, and {faults[0]} Name the environment yourself: "
            f"env.id={spec.id} acts without that wrapper; or {NAME_IT} with the wrapper on."
        )
    for fault in faults:
        warn(f"env.id={spec.id} acts without a wrapper of the data set's: {fault}")
    for wrapper in spec.additional_wrappers:
        if has_running_statistics(wrapper):
            warn(f"env {spec.id}: {wrapper.name} scales by running statistics, which were not recorded and begin anew.")
    left_out = [id(fault.wrapper) for fault in faults]
    return dataclasses.replace(
        spec, additional_wrappers=tuple(one for one in spec.additional_wrappers if id(one) not in left_out)
    )
