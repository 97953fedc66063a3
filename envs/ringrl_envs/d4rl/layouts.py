"""D4RL's mazes: walls, start and goal by cell, in D4RL's own coordinates (row 0 and column 0 hold the smallest).

Ant and point mass run in the same walls with other starts, goals and scales. gymnasium-robotics has the same mazes
with the origin in the middle and the row axis turned; building the walls at D4RL's places avoids a change of
coordinates in every observation.
"""

import xml.etree.ElementTree as ElementTree

import numpy as np

_WALLS = {
    "open": ("#######", "#.....#", "#.....#", "#.....#", "#######"),
    "umaze": ("#####", "#...#", "###.#", "#...#", "#####"),
    "medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#..#",
        "########",
    ),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ),
    "eval-umaze": ("#####", "#...#", "#.###", "#...#", "#####"),
    "eval-medium": (
        "########",
        "#......#",
        "#.#.##.#",
        "#....#.#",
        "###..###",
        "#......#",
        "#..##..#",
        "########",
    ),
    "eval-large": (
        "############",
        "#..#...#...#",
        "##.###.#.#.#",
        "#..#.#.....#",
        "#.##.#..##.#",
        "#......#...#",
        "#.##.#.#.###",
        "#....#.....#",
        "############",
    ),
}


def maze_walls(name: str) -> np.ndarray:
    """(rows, columns) bool, True where a wall stands.

    Raises:
        ValueError: unknown name.
    """
    if name not in _WALLS:
        raise ValueError(f"maze={name!r} is none of {', '.join(_WALLS)}.")
    return np.array([[cell == "#" for cell in row] for row in _WALLS[name]])


def add_box(world: ElementTree.Element, name: str, position: np.ndarray, size: np.ndarray, **attributes: str) -> None:
    """Add a fixed box to a MuJoCo world: middle and half sides (3,) in meters."""
    numbers = {"pos": " ".join(map(repr, map(float, position))), "size": " ".join(map(repr, map(float, size)))}
    ElementTree.SubElement(world, "geom", {"name": name, "type": "box", **numbers, **attributes})
