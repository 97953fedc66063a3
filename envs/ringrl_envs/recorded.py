"""An environment's whole specification as data sets and checkpoints record it, in JSON, and back again.

A record is gymnasium's `EnvSpec.to_json` as a dictionary: id, entry point, arguments, time limit, wrappers. What JSON
cannot hold (functions, above all) is left out of it and named in the record's `unrecorded`: the environment is then
made with what is registered under its id. A record is data: of what it names, only classes of environments and
wrappers are called.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import gymnasium.wrappers
import numpy as np
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from ringrl_envs.modules import load_attribute

# Of gymnasium's own wrappers, whose modules have moved: some look on, and would write their files or open their
# windows anew; some scale by running statistics, which no record has.
SPECTATORS = ("RecordVideo", "RenderCollection", "HumanRendering")
ADAPTIVE = ("NormalizeObservation", "NormalizeReward")
_SAME = ("kwargs", "max_episode_steps", "additional_wrappers")


class UnbuildableWrapperError(ValueError):
    """A wrapper of a specification that cannot be made anew."""

    def __init__(self, wrapper: WrapperSpec, reason: str) -> None:
        super().__init__(f"the wrapper {wrapper.name} ({wrapper.entry_point}) cannot be rebuilt: {reason}")
        self.wrapper = wrapper


def recordable(spec: EnvSpec) -> tuple[EnvSpec, list[str]]:
    """The specification without what JSON cannot hold, and the names of what that is: "entry_point", "kwargs.reward".

    Arrays and tuples become lists. A wrapper one of whose arguments is lost has `kwargs=None`, as gymnasium has it.
    """
    lost: list[str] = []
    entry_point = _place_of(spec.entry_point)
    if entry_point is None:
        lost.append("entry_point")
    kwargs = {}
    for name, value in spec.kwargs.items():
        try:
            kwargs[name] = _plain(value)
        except TypeError:
            lost.append(f"kwargs.{name}")
    wrappers = [dataclasses.replace(one, kwargs=_recorded_kwargs(one)) for one in spec.additional_wrappers]
    plain = dataclasses.replace(
        spec,
        entry_point=entry_point,
        kwargs=kwargs,
        additional_wrappers=tuple(wrappers),
        vector_entry_point=_place_of(spec.vector_entry_point),
    )
    return plain, lost


def record_of(spec: EnvSpec) -> dict[str, Any]:
    """The specification as plain JSON, with `unrecorded` where it lacks something."""
    plain, lost = recordable(spec)
    return json.loads(plain.to_json()) | ({"unrecorded": lost} if lost else {})


def is_same_environment(spec: EnvSpec, other: EnvSpec) -> bool:
    """Whether both make one environment: id, arguments, time limit and wrappers, as far as a record can tell."""
    one, two = record_of(spec), record_of(other)
    return spec.id == other.id and all(one[key] == two[key] for key in _SAME)


def spec_from_record(record: Mapping[str, Any], registered: EnvSpec | None, *, prefer_registered: bool) -> EnvSpec:
    """The specification that a record tells of.

    Args:
        record: as `record_of` gives, or a part of it without wrappers; its `kwargs` may hold `max_episode_steps`.
        registered: what is registered under the record's id, if anything is; it supplies what the record lacks.
        prefer_registered: take the registered entry point whatever the record says.

    Raises:
        ValueError: what the record lacks is not registered, or it names something that is no environment.
    """
    try:
        return _from_record(record, registered, prefer_registered)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError("its record is damaged.") from error


def _from_record(record: Mapping[str, Any], registered: EnvSpec | None, prefer_registered: bool) -> EnvSpec:
    recorded = record.get("entry_point")
    base = registered
    if not prefer_registered and isinstance(recorded, str):
        told = None if registered is None else _place_of(registered.entry_point)
        if told != recorded:
            base = _from_entry_point(str(record.get("id", "")), recorded, registered)
    if base is None:
        raise ValueError("its record does not say how it is made.")
    kwargs = {**_supplied(record, base), **(record.get("kwargs") or {})}
    kwargs.pop("render_mode", None)
    limit = kwargs.pop("max_episode_steps", record.get("max_episode_steps"))
    missing = [name for name in record.get("unrecorded", ()) if name.startswith("kwargs.") and name[7:] not in kwargs]
    if missing:
        raise ValueError(f"its {missing[0]} could not be recorded.")
    return dataclasses.replace(
        base,
        kwargs=kwargs,
        max_episode_steps=base.max_episode_steps if limit is None else int(limit),
        order_enforce=bool(record.get("order_enforce", base.order_enforce)),
        additional_wrappers=_wrappers(record, registered),
    )


def _supplied(record: Mapping[str, Any], base: EnvSpec) -> dict[str, Any]:
    """What is registered of the arguments that a record lacks: all, where it is but a part of a specification."""
    if "additional_wrappers" not in record:
        return base.kwargs
    lost = record.get("unrecorded", ())
    return {name: value for name, value in base.kwargs.items() if f"kwargs.{name}" in lost}


def load_wrapper(wrapper: WrapperSpec) -> Callable[..., gymnasium.Env]:
    """The class of a wrapper.

    Raises:
        UnbuildableWrapperError: its arguments are not known, or its class is not to be had.
    """
    if wrapper.kwargs is None:
        raise UnbuildableWrapperError(wrapper, "its arguments were not recorded.")
    found = getattr(gymnasium.wrappers, _gymnasium_name(wrapper.entry_point), None)
    try:
        found = load_attribute(wrapper.entry_point) if found is None else found
    except ValueError as error:
        raise UnbuildableWrapperError(wrapper, str(error)) from error
    if not (isinstance(found, type) and issubclass(found, gymnasium.Wrapper)):
        raise UnbuildableWrapperError(wrapper, "that is no gymnasium.Wrapper.")
    return found


def _from_entry_point(env_id: str, entry_point: str, registered: EnvSpec | None) -> EnvSpec:
    """A specification of a recorded entry point; what is registered instead, where that is not to be had any more."""
    try:
        found = load_attribute(entry_point)
    except ValueError:
        if registered is None:
            raise
        return registered  # as when a package has moved its classes
    registered = registered or gymnasium.registry.get(env_id)  # the import may have registered it
    if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
        if registered is None:
            raise ValueError(f"its recorded entry point {entry_point} is no class of environments.")
        return registered
    limit = None if registered is None else registered.max_episode_steps
    return EnvSpec(env_id, entry_point, max_episode_steps=limit)


def _wrappers(record: Mapping[str, Any], registered: EnvSpec | None) -> tuple[WrapperSpec, ...]:
    """The record's wrappers; arguments that it lacks are those of the same wrapper as registered."""
    own = () if registered is None else registered.additional_wrappers
    told = record.get("additional_wrappers")
    if told is None:
        return own
    wrappers = []
    for index, one in enumerate(told):
        place, kwargs = one["entry_point"], one.get("kwargs")
        if _gymnasium_name(place) in SPECTATORS:
            continue
        if index < len(own) and own[index].entry_point == place and kwargs in (None, _recorded_kwargs(own[index])):
            kwargs = own[index].kwargs  # with tuples and arrays, if there are
        name = str(one.get("name", place.rpartition(":")[2]))
        wrappers.append(WrapperSpec(name, place, None if kwargs is None else dict(kwargs)))
    return tuple(wrappers)


def has_running_statistics(wrapper: WrapperSpec) -> bool:
    """Whether what a wrapper gives depends on what it has seen since it was made."""
    return _gymnasium_name(wrapper.entry_point) in ADAPTIVE


def _gymnasium_name(place: str) -> str:
    """The name of a wrapper of gymnasium's own, whichever module it was in; empty for another's."""
    return place.rpartition(":")[2] if place.startswith("gymnasium.wrappers.") else ""


def _recorded_kwargs(wrapper: WrapperSpec) -> dict[str, Any] | None:
    """The arguments of a wrapper as a record has them; None where JSON cannot hold them, or they are not known."""
    try:
        return None if wrapper.kwargs is None else _plain(wrapper.kwargs)
    except TypeError:
        return None


def _place_of(entry_point: Any) -> str | None:
    """`module:name` of a class or a function that is found there; None for any other, such as a lambda."""
    if entry_point is None or isinstance(entry_point, str):
        return entry_point
    place = f"{getattr(entry_point, '__module__', '')}:{getattr(entry_point, '__qualname__', '')}"
    if place.startswith("__main__:"):  # another program is another __main__
        return None
    with contextlib.suppress(ValueError):
        if load_attribute(place) is entry_point:
            return place
    return None


def _plain(value: Any) -> Any:
    """The value in JSON's own types; raises TypeError where it has none."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys that are no strings")
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):  # a StrEnum, for one
        return str(value)
    raise TypeError(type(value).__name__)
