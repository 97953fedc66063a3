"""URLB's maze for the suite's point mass: a cross of walls, a target in one corner, starts in the top left one."""

import collections
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
from dm_control import mujoco
from dm_control.suite import base, common
from dm_control.utils.rewards import tolerance

HEIGHT = 0.01  # m, of the mass and the target
TARGETS = {
    "reach_top_left": (-0.15, 0.15),
    "reach_top_right": (0.15, 0.15),
    "reach_bottom_left": (-0.15, -0.15),
    "reach_bottom_right": (0.15, -0.15),
}
TARGET_RADIUS = 0.015
START = ((-0.29, -0.15), (0.15, 0.29))  # x and y, m
WALLS = {
    "maze_y": {"zaxis": "0 1 0", "size": ".18 .02 .02"},
    "maze_x": {"zaxis": "1 0 0", "size": ".02 .18 .02"},
}


def physics(name: str) -> mujoco.Physics:
    """The suite's point mass, touching walls, with the maze's and the target of a task."""
    root = ElementTree.fromstring(common.read_model("point_mass.xml"))
    option, world = root.find("option"), root.find("worldbody")
    assert option is not None, "the suite's model has it"
    assert world is not None, "the suite's model has it"
    for flag in option.findall("flag"):  # contacts are switched off there
        option.remove(flag)
    for wall, shape in WALLS.items():
        geom = {"name": wall, "type": "box", "pos": "0 0 .02", "material": "site", **shape}
        ElementTree.SubElement(world, "geom", geom)
    target = world.find("geom[@name='target']")
    assert target is not None, "the suite's model has it"
    x, y = TARGETS[name]
    target.attrib.update(pos=f"{x} {y} {HEIGHT}", contype="0", conaffinity="0")
    return mujoco.Physics.from_xml_string(ElementTree.tostring(root, "unicode"), common.ASSETS)


class Reach(base.Task):
    """Be at the target, with little control."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._target = np.array([*TARGETS[name], HEIGHT])

    def initialize_episode(self, physics: Any) -> None:
        physics.data.qpos[:] = [self.random.uniform(*bounds) for bounds in START]
        super().initialize_episode(physics)

    def get_observation(self, physics: Any) -> Any:
        return collections.OrderedDict(position=physics.position(), velocity=physics.velocity())

    def get_reward(self, physics: Any) -> Any:
        control = np.mean(tolerance(physics.control(), margin=1, value_at_margin=0, sigmoid="quadratic"))
        distance = np.linalg.norm(self._target - physics.named.data.geom_xpos["pointmass"])
        near = tolerance(distance, bounds=(0, TARGET_RADIUS), margin=TARGET_RADIUS)
        return float(near * (control + 4) / 5)
