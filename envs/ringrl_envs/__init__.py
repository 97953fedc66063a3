"""Environments for in-context reinforcement learning, made the same way as any other gymnasium environment.

Importing registers ringrl/DarkRoom-v0, ringrl/DarkKeyToDoor-v0, ringrl/HiddenGoalPointMaze-v0 and dm_control's tasks,
ringrl/dmc_walker_stand-v0 and so on, with gymnasium. Needs gymnasium and numpy; mujoco, gymnasium-robotics and
dm_control are imported when an environment that needs them is made.
"""

from ringrl_envs.collection import Episode, collect_episodes
from ringrl_envs.controllers import Behaviour, find_expert, make_controller
from ringrl_envs.dmc import Relabeller, dmc_id, dmc_tasks
from ringrl_envs.flatten import FlattenGoalDict, flat_space, flatten_keys, flatten_observation
from ringrl_envs.reference import batch_size, reference_scores
from ringrl_envs.registry import make, make_vector, max_episode_steps, register, register_own, task_ids, task_split
from ringrl_envs.tasks import TaskSplit

__all__ = [
    "Behaviour",
    "Episode",
    "FlattenGoalDict",
    "Relabeller",
    "TaskSplit",
    "batch_size",
    "collect_episodes",
    "dmc_id",
    "dmc_tasks",
    "find_expert",
    "flat_space",
    "flatten_keys",
    "flatten_observation",
    "make",
    "make_controller",
    "make_vector",
    "max_episode_steps",
    "reference_scores",
    "register",
    "task_ids",
    "task_split",
]

register_own()
