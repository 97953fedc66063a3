"""What RingRL's wrappers cost: `make` and `make_vector` against the bare gymnasium environment, step for step.

Eight bare environments, eight from `make` and one `make_vector` of eight are given the same seeds and actions, so that
all three do the same physics. Only steps are timed, in seconds of processor time, which other work on the machine
disturbs least. The three take turns; each figure is the best of the repeats.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "disable")

import gymnasium
import numpy as np
import ringrl_envs
from ringrl_envs.registry import find_spec

from experiments.lib.cells import CellFile
from experiments.lib.machine import describe_machine
from experiments.lib.results import make_parser

COUNT, GOAL = 8, 0.8
ROUNDS = {  # of COUNT steps each: some hundredths of a second
    "CartPole-v1": 100,
    "Pendulum-v1": 100,
    "Hopper-v5": 25,
    "PointMaze_UMaze-v3": 50,
    "AntMaze_UMaze-v4": 12,
    "AdroitHandPen-v1": 12,
    "FrankaKitchen-v1": 4,
    "ringrl/dmc_cheetah_run-v0": 40,
    "ringrl/dmc_walker_walk-v0": 20,
    "ringrl/dmc_cartpole_swingup-v0": 40,
}


def bare(env_id: str) -> gymnasium.Env:
    """gymnasium's own, without its passive checker: the fastest that gymnasium offers."""
    return gymnasium.make(find_spec(env_id), disable_env_checker=True)


class Singles:
    """Environments one after the other, in the manners of a vector environment: steps and seconds."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self.envs = [make() for _ in range(COUNT)]

    def seconds(self, actions: Sequence[Sequence[Any]]) -> float:
        """Seconds of stepping all through `actions` (rounds, COUNT), from seeds 0 to COUNT - 1."""
        for index, env in enumerate(self.envs):
            env.reset(seed=index)
        total = 0.0
        for round_actions in actions:
            began = time.thread_time()
            results = [env.step(action) for env, action in zip(self.envs, round_actions, strict=True)]
            total += time.thread_time() - began
            for env, (_, _, terminated, truncated, _) in zip(self.envs, results, strict=True):
                if terminated or truncated:
                    env.reset()
        return total


class Vector:
    """The same by `make_vector`."""

    def __init__(self, env_id: str) -> None:
        self.env = ringrl_envs.make_vector(env_id, COUNT)

    def seconds(self, actions: Sequence[np.ndarray]) -> float:
        """See `Singles.seconds`."""
        self.env.reset(seed=0)
        total = 0.0
        for round_actions in actions:
            began = time.thread_time()
            _, _, terminations, truncations, _ = self.env.step(round_actions)
            total += time.thread_time() - began
            ended = terminations | truncations
            if ended.any():
                self.env.reset(options={"reset_mask": ended})
        return total


def measure(env_id: str, rounds: int, repeats: int) -> dict[str, float]:
    """Steps/s of the bare environment, and the share of it that `make` and `make_vector` reach."""
    candidates = {
        "bare": Singles(functools.partial(bare, env_id)),
        "checked": Singles(lambda: gymnasium.make(find_spec(env_id))),
        "make": Singles(functools.partial(ringrl_envs.make, env_id)),
        "make_vector": Vector(env_id),
    }
    space = candidates["make_vector"].env.action_space
    space.seed(0)
    actions = [space.sample() for _ in range(rounds)]
    best = dict.fromkeys(candidates, float("inf"))
    for repeat in range(repeats):
        names = list(candidates)
        shift = repeat % len(names)  # whoever goes first after a pause should not always be the same
        for name in names[shift:] + names[:shift]:
            best[name] = min(best[name], candidates[name].seconds(actions))
    return {
        "bare_steps_per_second": round(rounds * COUNT / best["bare"], 1),
        **{name: round(best["bare"] / best[name], 3) for name in ("checked", "make", "make_vector")},
    }


def main() -> None:
    """Print the table, and write it unless `--smoke` is given."""
    parser = make_parser(__doc__)
    parser.add_argument("ids", nargs="*", default=list(ROUNDS), help="environment ids; all of the table without")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    print(f"{'environment':32}{'bare steps/s':>14}{'checked':>10}{'make':>8}{'make_vector':>13}  at least {GOAL}")
    file = CellFile(Path(__file__).parent / "results" / "environment_speed.json", "environment_speed")
    for env_id in options.ids:
        rounds, repeats = (2, 1) if options.smoke else (ROUNDS.get(env_id, 50), options.repeats)
        row = measure(env_id, rounds, repeats)
        met = "yes" if min(row["make"], row["make_vector"]) >= GOAL else "no"
        figures = f"{row['bare_steps_per_second']:>14.0f}{row['checked']:>10.2f}{row['make']:>8.2f}"
        print(f"{env_id:32}{figures}{row['make_vector']:>13.2f}  {met}", flush=True)
        if not options.smoke:
            file.put(env_id, {**row, "goal": GOAL, "machine": describe_machine(device=False)})


if __name__ == "__main__":
    main()
