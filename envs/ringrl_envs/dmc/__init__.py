"""dm_control's tasks of URLB and ExoRL as gymnasium environments, and their rewards read from recorded physics.

Ids are `ringrl/dmc_<domain>_<task>-v0`. Observations are ExoRL's: the task's own entries in their own order, flat,
float32; actions are scaled to [-1, 1], one action a control step; episodes are truncated after 1,000 steps (jaco 250)
and nothing terminates them. `reset(seed=s)` starts the episode that dm_control starts with `random=s`.

Where these tasks differ from ExoRL's and URLB's code (github.com/denisyarats/exorl, github.com/rll-research/
url_benchmark, `custom_dmc_tasks`):

- Physics are those of the installed mujoco and dm_control, not mujoco 2.0: trajectories differ, and states recorded
  there have the same layout. walker, cheetah and quadruped take the suite's models and starts; URLB's copies differ
  in the size of cheetah's floor as drawn, and in settling cheetah with 200 single steps, which is the same dynamics.
- Rewards are float64; jaco's and the multi-task ones are rounded to float32 there. Actions are scaled in float64.
- point_mass_maze: the start is drawn from the environment's own generator (there from numpy's global one, which no
  seed reaches), and one draw that was overwritten at once is left out. One model with the target moved, not four files.
- jaco is ExoRL's: the target is a site, with no brick in the scene (18 numbers of physics, 42 of observation).
  URLB's has a Duplo brick at the target and its pose in the observation (55); its data do not fit here. The model is
  compiled once, not at every reset; episodes end after 250 control steps, not when the clock reaches 10 s.
- URLB's quadruped roll, roll_fast, escape and fetch, its hopper tasks and the multi-task variants are left out.
"""

from ringrl_envs.dmc.catalogue import dmc_id, dmc_tasks
from ringrl_envs.dmc.relabel import Relabeller

__all__ = ["Relabeller", "dmc_id", "dmc_tasks"]
