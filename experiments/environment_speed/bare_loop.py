"""dm_control's own loop against `ringrl_envs.make` of the same task, and against relabeling its states.

The three take turns, ten steps each, in seconds of processor time; ratios are medians over the turns.
"""

import os
import time

os.environ.setdefault("MUJOCO_GL", "disable")

import numpy as np
import ringrl_envs
from ringrl_envs.dmc import jaco
from ringrl_envs.dmc.catalogue import split_task
from ringrl_envs.dmc.suite import _load

TASKS = (
    *("cartpole_swingup", "cheetah_run", "jaco_reach_top_left", "point_mass_maze_reach_top_left"),
    *("quadruped_walk", "walker_run"),
)
STEPS, TURN, REPEATS = 240, 10, 4


def measure(task: str) -> np.ndarray:
    """Microseconds a step of the bare loop, the environment and the relabeller, (turns, 3)."""
    domain, name = split_task(task)
    bare = jaco.make_environment(name, np.random.RandomState(0)) if domain == "jaco" else _load(domain, name)
    env_id = ringrl_envs.dmc_id(task)
    env, relabeller = ringrl_envs.make(env_id), ringrl_envs.Relabeller(env_id)
    env.action_space.seed(0)
    actions = np.array([env.action_space.sample() for _ in range(STEPS)])
    spec = bare.action_spec()
    scaled = (actions + 1) / 2 * (spec.maximum - spec.minimum) + spec.minimum
    turns = []
    for repeat in range(REPEATS):
        bare.reset()
        env.reset(seed=repeat)
        for first in range(0, STEPS, TURN):
            steps = slice(first, first + TURN)
            physics = np.stack([env.unwrapped.physics_state()] * (TURN + 1))  # type: ignore[attr-defined]
            held = np.concatenate([actions[:1], actions[steps]])
            times = [time.thread_time()]
            for action in scaled[steps]:
                bare.step(action)
            times.append(time.thread_time())
            for action in actions[steps]:
                env.step(action)
            times.append(time.thread_time())
            relabeller(physics, held)
            times.append(time.thread_time())
            turns.append(np.diff(times) / TURN * 1e6)
    return np.array(turns[1:])  # the first builds the relabeller's environment


def main() -> None:
    """Print one line a task."""
    print("task: bare loop us/step; rate of ringrl_envs.make, rate of relabeling, as shares of the bare loop's")
    for task in TASKS:
        turns = measure(task)
        make, relabel = (float(np.median(turns[:, 0] / turns[:, column])) for column in (1, 2))
        print(f"{task}: {np.median(turns[:, 0]):.0f}; {make:.2f}, {relabel:.2f}", flush=True)


if __name__ == "__main__":
    main()
