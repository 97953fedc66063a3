"""Ids of D4RL's environments; nothing is imported until one is made.

ringrl/D4RLAntMaze{UMaze,Medium,Large}-v0, ringrl/D4RLAntMazeEval{UMaze,Medium,Large}-v0,
ringrl/D4RLMaze2d{Open,UMaze,Medium,Large}[Dense]-v0, ringrl/D4RLMaze2dEval{UMaze,Medium,Large}[Dense]-v0,
ringrl/D4RLKitchen-v0, ringrl/D4RLKitchenMixed-v0, ringrl/D4RL{Pen,Hammer,Relocate,Door}-v0, ringrl/D4RLAnt-v0.
"""

from typing import Any

import gymnasium

_PACKAGE = "ringrl_envs.d4rl"
_CAPITALS = {"open": "Open", "umaze": "UMaze", "medium": "Medium", "large": "Large"}
_POINT_LIMITS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}
_HAND_LIMITS = {"Pen": 100, "Hammer": 200, "Relocate": 200, "Door": 200}
_KITCHEN_TASKS = {
    "Kitchen": ("microwave", "kettle", "light switch", "slide cabinet"),  # of kitchen-complete and kitchen-partial
    "KitchenMixed": ("microwave", "kettle", "bottom burner", "light switch"),
}


def _entries() -> dict[str, tuple[str, int, dict[str, Any]]]:
    """By name: where the class is, the time limit, the arguments."""
    entries: dict[str, tuple[str, int, dict[str, Any]]] = {"Ant": ("ant:D4RLAnt", 1000, {})}
    for size, capital in _CAPITALS.items():
        for prefix, kind in (("", ""), ("eval-", "Eval")):
            if (size, prefix) == ("open", "eval-"):
                continue
            maze, limit = f"{prefix}{size}", _POINT_LIMITS[size]
            entries[f"Maze2d{kind}{capital}"] = ("maze2d:D4RLMaze2d", limit, {"maze": maze})
            entries[f"Maze2d{kind}{capital}Dense"] = ("maze2d:D4RLMaze2d", limit, {"maze": maze, "reward": "dense"})
            if size != "open":
                limit = 700 if size == "umaze" else 1000
                entries[f"AntMaze{kind}{capital}"] = ("ant_maze:D4RLAntMaze", limit, {"maze": maze})
    for name, tasks in _KITCHEN_TASKS.items():
        entries[name] = ("kitchen:D4RLKitchen", 280, {"tasks": tasks})
    for name, limit in _HAND_LIMITS.items():
        entries[name] = (f"adroit:D4RL{name}", limit, {})
    return entries


D4RL_IDS: tuple[str, ...] = tuple(f"ringrl/D4RL{name}-v0" for name in _entries())


def register_d4rl() -> None:
    """Register the ids above with gymnasium; again is harmless."""
    if D4RL_IDS[-1] in gymnasium.registry:
        return
    for name, (entry_point, limit, kwargs) in _entries().items():
        gymnasium.register(f"ringrl/D4RL{name}-v0", f"{_PACKAGE}.{entry_point}", max_episode_steps=limit, kwargs=kwargs)
