"""Scripted controllers of graded quality, by environment id."""

from collections.abc import Callable
from typing import Any

from gymnasium.vector import VectorEnv

from ringrl_envs.controllers.ant_maze import AntMazeExpert
from ringrl_envs.controllers.detour import DetourController
from ringrl_envs.controllers.graded import Behaviour, Expert, GradedController, RandomController, random_actions
from ringrl_envs.controllers.grid import GridExpert
from ringrl_envs.controllers.kitchen import KitchenExpert
from ringrl_envs.controllers.maze import HiddenGoalExpert, PointMazeExpert
from ringrl_envs.controllers.ornstein_uhlenbeck import OrnsteinUhlenbeckController
from ringrl_envs.controllers.pendulum import PendulumExpert

EXPERTS: dict[str, Callable[[Any], Expert]] = {
    "ringrl/DarkRoom-v0": GridExpert,
    "ringrl/DarkKeyToDoor-v0": GridExpert,
    "ringrl/HiddenGoalPointMaze-v0": HiddenGoalExpert,
    "PointMaze_*": PointMazeExpert,
    "AntMaze_*": AntMazeExpert,
    "FrankaKitchen-v1": KitchenExpert,
    "Pendulum-v1": PendulumExpert,
}


def find_expert(env_id: str) -> Callable[[Any], Expert] | None:
    """What builds the expert of an environment from its vector form; None where there is none."""
    name = env_id.rpartition(":")[2]
    family = name.partition("_")[0] + "_*"
    return EXPERTS.get(family if family in EXPERTS else name)


def make_controller(
    env_id: str, vector_env: VectorEnv, *, kind: str = "scripted", quality: float | None = None
) -> Behaviour:
    """A behavior for a vector environment from `make_vector`: `reset(mask, rng)` and `act(observations, rng)`.

    `kind="scripted"` is the environment's expert at `quality` 0 to 1 (None draws it for every episode), with
    privileged sight of hidden goals: less of it means more random actions. `kind="detour"` is the same expert going
    by way of random places: less quality means more of them. `kind="random"` acts uniformly in any environment,
    `kind="ou"` with Ornstein-Uhlenbeck noise in those with continuous actions.

    Raises:
        ValueError: unknown kind or quality, or an environment without such a controller.
    """
    if kind == "random":
        return RandomController(vector_env.single_action_space, vector_env.num_envs)
    if kind == "ou":
        return OrnsteinUhlenbeckController(vector_env.single_action_space, vector_env.num_envs)
    if kind not in ("scripted", "detour"):
        raise ValueError(f"kind={kind!r} is none of scripted, detour, random, ou.")
    expert = find_expert(env_id)
    if expert is None:
        raise ValueError(
            f"{env_id} has no scripted controller, only {', '.join(EXPERTS)} have one: collect with random actions"
            " or a trained checkpoint."
        )
    guide = expert(vector_env)
    if kind == "detour":
        if not hasattr(guide, "random_places"):
            raise ValueError(f"{env_id} has no places to make detours by: collect with kind=scripted.")
        return DetourController(guide, vector_env.num_envs, quality)  # type: ignore[arg-type]
    return GradedController(guide, vector_env.single_action_space, vector_env.num_envs, quality)


__all__ = [
    "EXPERTS",
    "Behaviour",
    "DetourController",
    "GradedController",
    "OrnsteinUhlenbeckController",
    "RandomController",
    "find_expert",
    "make_controller",
    "random_actions",
]
