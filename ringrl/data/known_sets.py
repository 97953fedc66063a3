"""The data sets that RingRL knows by name: Minari's public ones, and those that its own collections make."""

import dataclasses
import itertools
import re

COLLECTED = {  # by the name of the collection, which is also the choice of the group `data`
    "adroit_pen": "a hand of 24 joints that turns a pen, by a learner",
    "antmaze_umaze": "an ant in a maze, by a walker of graded quality",
    "dark_key_to_door": "a grid with a hidden key, then a hidden door",
    "dark_room": "a grid with a hidden goal; 1 for every step on it",
    "dark_room_sparse": "a grid with a hidden goal; 1 on reaching it",
    "halfcheetah": "a two-legged runner, by a learner",
    "hidden_goal_point_maze": "a ball in a maze whose goal is not shown",
    "hopper": "a one-legged hopper, by a learner",
    "kitchen": "an arm in a kitchen, of graded quality",
    "pendulum": "a pendulum to swing up, of graded quality",
    "point_maze": "a ball in a maze whose goal is shown",
    "quickstart_smoke": "the quickstart's smallest",
    "walker2d": "a two-legged walker, by a learner",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of public sets: every task with every kind of policy."""

    namespace: str
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    version: int
    text: str  # description of the sets

    @property
    def names(self) -> list[str]:
        """Minari ids of the family."""
        pairs = itertools.product(self.tasks, self.kinds)
        return [f"{self.namespace}/{task}/{kind}-v{self.version}" for task, kind in pairs]

    @property
    def pattern(self) -> str:
        """All ids of the family as one pattern, with the alternatives in braces."""
        return f"{self.namespace}/{_either(self.tasks)}/{_either(self.kinds)}-v{self.version}"


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{{{', '.join(words)}}}"


_MAZES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
_SIZES = ("open", "open-dense", "umaze", "umaze-dense", "medium", "medium-dense", "large", "large-dense")
_HANDS = ("pen", "door", "hammer", "relocate")
_WALKERS = ("halfcheetah", "hopper", "walker2d", "ant", "humanoid")
_OTHERS = ("swimmer", "reacher", "pusher", "invertedpendulum", "inverteddoublependulum")
PUBLIC = (
    Family("D4RL", ("antmaze",), _MAZES, 1, "an ant in a maze"),
    Family("D4RL", ("pointmaze",), _SIZES, 2, "a ball in a maze, whose goal moves when it is reached"),
    Family("D4RL", ("kitchen",), ("complete", "partial", "mixed"), 2, "an arm in a kitchen, with four tasks"),
    Family("D4RL", _HANDS, ("human", "cloned", "expert"), 2, "a hand of 24 joints at a task"),
    Family("mujoco", _WALKERS, ("simple", "medium", "expert"), 0, "MuJoCo's robots that walk"),
    Family("mujoco", _OTHERS, ("medium", "expert"), 0, "MuJoCo's other robots"),
)


def collected_name(collection: str) -> str:
    """The Minari id of the set that `ringrl collect collection=NAME` makes."""
    return f"ringrl/{collection}-v0"


def known_names() -> list[str]:
    """The Minari id of every known set, the public ones first."""
    return [*(name for family in PUBLIC for name in family.names), *map(collected_name, COLLECTED)]


def find_known_name(text: str) -> str | None:
    """The known Minari id that matches `text` up to case, separators and a missing version, or None."""
    return next((name for name in known_names() if _spelling(name) == _spelling(text)), None)


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"-v\d+$", "", name.lower()))
