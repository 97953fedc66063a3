"""The environments with short names on the command line: the choices of the group `env`."""

from typing import Any

from ringrl.config.train import EnvConfig


def _ant_in_maze(size: str) -> EnvConfig:
    """A four-legged ant in a maze; 1 on reaching the goal, which ends the episode, as in D4RL."""
    return EnvConfig(f"AntMaze_{size}-v4", {"continuing_task": False})


_KITCHEN_TASKS: list[Any] = ["microwave", "kettle", "light switch", "slide cabinet"]
ENVIRONMENTS = {
    "from_data": EnvConfig(),  # the environment that the data set (or the checkpoint) names
    "adroit_pen": EnvConfig("AdroitHandPen-v1"),  # a hand of 24 joints that turns a pen
    "antmaze_large": _ant_in_maze("Large"),
    "antmaze_medium": _ant_in_maze("Medium"),
    "antmaze_umaze": _ant_in_maze("UMaze"),
    "cartpole_swingup": EnvConfig("ringrl/dmc_cartpole_swingup-v0"),  # dm_control's cart and pole
    "cheetah_run": EnvConfig("ringrl/dmc_cheetah_run-v0"),  # dm_control's cheetah
    "dark_key_to_door": EnvConfig("ringrl/DarkKeyToDoor-v0"),  # a grid with a hidden key, then a hidden door
    # A 9 x 9 grid with a hidden goal; 1 for every step on it, or 1 on reaching it, which ends the episode
    "dark_room": EnvConfig("ringrl/DarkRoom-v0", {"reward": "dense"}),
    "dark_room_sparse": EnvConfig("ringrl/DarkRoom-v0", {"reward": "sparse"}),
    "halfcheetah": EnvConfig("HalfCheetah-v4"),  # a two-legged runner, on D4RL's physics
    "hidden_goal_point_maze": EnvConfig("ringrl/HiddenGoalPointMaze-v0"),  # MuJoCo PointMaze, its goal not observed
    "hopper": EnvConfig("Hopper-v4"),  # a one-legged hopper, on D4RL's physics
    "jaco_reach": EnvConfig("ringrl/dmc_jaco_reach_top_left-v0"),  # a Jaco arm that reaches for the top left
    # A robot arm in a kitchen; 1 for each of D4RL's four tasks that it completes
    "kitchen": EnvConfig("FrankaKitchen-v1", {"tasks_to_complete": _KITCHEN_TASKS}),
    "pendulum": EnvConfig("Pendulum-v1"),  # swing a pendulum up; one task, fully observed
    "point_mass_maze": EnvConfig("ringrl/dmc_point_mass_maze_reach_top_left-v0"),  # dm_control's, on its way there
    "point_maze": EnvConfig("PointMaze_UMaze-v3"),  # MuJoCo PointMaze, its goal in sight
    "walker2d": EnvConfig("Walker2d-v4"),  # a two-legged walker, on D4RL's physics
    "walker_run": EnvConfig("ringrl/dmc_walker_run-v0"),  # dm_control's walker
    "walker_stand": EnvConfig("ringrl/dmc_walker_stand-v0"),
    "walker_walk": EnvConfig("ringrl/dmc_walker_walk-v0"),
}
