"""D4RL's tasks by name: file name, columns, environment and time limit of each."""

import dataclasses
import difflib
import enum
from pathlib import Path
from typing import Any

from ringrl.data.reference_scores import REFERENCE_SCORES
from ringrl.errors import RingRLError


class Family(enum.StrEnum):
    """Tasks whose files have the same layout."""

    locomotion = "locomotion"
    maze2d = "maze2d"
    antmaze = "antmaze"
    kitchen = "kitchen"
    adroit = "adroit"


@dataclasses.dataclass(frozen=True)
class D4RLTask:
    """One task: the contents of its file, and the environment (of `ringrl_envs`) that scores a policy on it."""

    name: str
    family: Family
    environment: str
    max_episode_steps: int
    observation_size: int  # per row of the file; mazes are stored with two more numbers, the goal
    action_size: int
    goal: tuple[float, float] | None = None  # the environment's default goal; a file's own goals take precedence
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


_ROBOTS = {  # environment, observation size, action size
    "hopper": ("Hopper-v4", 11, 3),
    "halfcheetah": ("HalfCheetah-v4", 17, 6),
    "walker2d": ("Walker2d-v4", 17, 6),
    "ant": ("ringrl/D4RLAnt-v0", 111, 8),
}
_HANDS = {  # environment, observation size, action size, time limit, time limit of the longhorizon tasks
    "pen": ("ringrl/D4RLPen-v0", 45, 24, 100, 200),
    "hammer": ("ringrl/D4RLHammer-v0", 46, 26, 200, 600),
    "relocate": ("ringrl/D4RLRelocate-v0", 39, 30, 200, 500),
    "door": ("ringrl/D4RLDoor-v0", 39, 28, 200, 300),
}
_ANT_GOALS = {  # the center around which D4RL samples the evaluation's goal
    "umaze": (0.75, 8.75),
    "medium": (20.75, 20.75),
    "large": (32.75, 24.75),
    "eval-umaze": (0.75, 8.75),
    "eval-medium": (20.75, 0.75),
    "eval-large": (32.75, 0.75),
}
_POINT_GOALS = {
    "open": (2.0, 3.0),
    "umaze": (1.0, 1.0),
    "medium": (6.0, 6.0),
    "large": (7.0, 9.0),
    "eval-umaze": (1.0, 3.0),
    "eval-medium": (1.0, 6.0),
    "eval-large": (1.0, 9.0),
}
_POINT_LIMITS = {
    "v0": {"open": 150, "umaze": 150, "medium": 250, "large": 600},
    "v1": {"umaze": 300, "medium": 600, "large": 800},
}
_CAPITALS = {"open": "Open", "umaze": "UMaze", "medium": "Medium", "large": "Large"}


def find_task(name: str) -> D4RLTask:
    """The task of this name; raises `RingRLError` with the nearest names if D4RL has no such task."""
    if name not in REFERENCE_SCORES:
        raise RingRLError(f"task={name} is not a task of D4RL: {_nearest(name)}.")
    robot, _, rest = name.partition("-")
    rest, _, version = rest.rpartition("-")
    if robot in _ROBOTS:
        environment, observations, actions = _ROBOTS[robot]
        return D4RLTask(name, Family.locomotion, environment, 1000, observations, actions)
    if robot in _HANDS:
        environment, observations, actions, limit, long_limit = _HANDS[robot]
        limit = long_limit if rest.endswith("longhorizon") else limit
        return D4RLTask(name, Family.adroit, environment, limit, observations, actions)
    if robot == "kitchen":
        environment = "ringrl/D4RLKitchenMixed-v0" if rest == "mixed" else "ringrl/D4RLKitchen-v0"
        return D4RLTask(name, Family.kitchen, environment, 280, 60, 9)
    dense = "Dense" if rest.endswith("dense") else ""
    maze = rest.removesuffix("-dense").removesuffix("-play").removesuffix("-diverse")
    size = maze.removeprefix("eval-")
    variant = ("Eval" if maze.startswith("eval-") else "") + _CAPITALS[size] + dense
    if robot == "maze2d":
        limit = _POINT_LIMITS[version][size]
        return D4RLTask(name, Family.maze2d, f"ringrl/D4RLMaze2d{variant}-v0", limit, 4, 2, _POINT_GOALS[maze])
    limit = 700 if size == "umaze" else 1000
    return D4RLTask(name, Family.antmaze, f"ringrl/D4RLAntMaze{variant}-v0", limit, 29, 8, _ANT_GOALS[maze])


def task_of_file(file: str | Path) -> str:
    """The task whose file D4RL publishes under this name, such as hopper_medium-v2.hdf5; `_` and `-` are equivalent.

    Raises `RingRLError` asking for task=NAME for any other name.
    """
    stem = _plain(Path(file).stem)
    if stem not in _FILES:
        raise RingRLError(f"{file}: not the name of a file of D4RL, so say task=NAME ({_nearest(stem)}).")
    return _FILES[stem]


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, list(REFERENCE_SCORES), n=3, cutoff=0.5)
    return (
        f"nearest are {', '.join(near)}" if near else "such as hopper-medium-v2, antmaze-large-diverse-v2, pen-human-v1"
    )


def _plain(stem: str) -> str:
    return stem.lower().replace("_", "-")


def _published_stems(name: str) -> list[str]:
    """The names, without suffix, under which D4RL publishes the file of a task."""
    robot, _, rest = name.partition("-")
    rest, _, version = rest.rpartition("-")
    if robot in _ROBOTS and version == "v0":
        short = "walker" if (robot, rest) == ("walker2d", "medium-replay") else robot
        return [f"{short}_{rest.replace('medium-replay', 'mixed')}"]
    if robot in _HANDS and version == "v0":
        return {
            "human": [f"{robot}-v0_demos_clipped"],
            "cloned": [f"{robot}-demos-v0-bc-combined"],
            "expert": [f"{robot}-v0_expert_clipped"],
        }.get(rest, [])
    if robot == "kitchen":
        return {
            "complete": ["mini_kitchen_microwave_kettle_light_slider-v0"],
            "partial": ["kitchen_microwave_kettle_light_slider-v0"],
            "mixed": ["kitchen_microwave_kettle_bottomburner_light-v0"],
        }[rest]
    if robot == "maze2d":
        kind = rest if rest.endswith("dense") else f"{rest}-sparse"
        return [f"maze2d-{kind}" if version == "v0" else f"maze2d-{kind}-{version}"]
    if robot == "antmaze" and not rest.startswith("eval-"):
        size = rest.partition("-")[0]
        old = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}[size]
        starts, goals = rest != "umaze", rest.endswith("diverse")
        stem = f"Ant_maze_{size if version == 'v1' else old}_noisy_multistart_{starts}_multigoal_{goals}_sparse"
        return [f"{stem}_fixed" if version == "v2" else stem]
    return []


_FILES = {_plain(stem): name for name in REFERENCE_SCORES for stem in (name, *_published_stems(name))}
