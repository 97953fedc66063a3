"""How fast an ExoRL folder is imported: as recorded beside `numpy.load`, relabelled beside the bare dm_control loop.

    python experiments/data_import/exorl.py [EPISODES] [REPEATS]

In one process by its own processor seconds, which other work on the machine hardly changes; with two workers by the
clock. Measurements are interleaved, and the best of each is kept.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dm_control import suite
from ringrl_envs import Relabeller, dmc_id

from ringrl.data.exorl_writer import ExorlWriter
from ringrl.data.sources.exorl import build_from_exorl, list_episodes
from ringrl.data.sources.ordered_map import ordered_map
from ringrl.types import ActionKind, ActionSpec

TASKS = (("walker", "stand", "run"), ("cheetah", "run", "run"), ("cartpole", "swingup", "swingup"))
STEPS, DISTINCT = 1000, 8
COLUMNS = ("observation", "action", "reward", "discount")


def record(folder: Path, domain: str, task: str, episodes: int) -> None:
    """A few episodes of random actions, written again and again."""
    env, rng, made = suite.load(domain, task, task_kwargs={"random": 0}), np.random.default_rng(0), []
    for _ in range(min(episodes, DISTINCT)):
        actions = rng.uniform(-1, 1, (STEPS, *env.action_spec().shape)).astype(np.float32)
        rows = [(env.reset(), env.physics.get_state())]
        rows += [(env.step(action), env.physics.get_state()) for action in actions]
        observations = np.stack([np.concatenate([*map(np.ravel, step.observation.values())]) for step, _ in rows])
        rewards = np.array([step.reward for step, _ in rows[1:]])
        made.append((observations, actions, rewards, np.stack([state for _, state in rows])))
    writer = ExorlWriter(folder)
    for index in range(episodes):
        writer.append(*made[index % len(made)])


def clock(processes: int) -> Callable[[], float]:
    """Seconds of this process where it is alone, else of the world."""
    return time.process_time if processes == 1 else time.perf_counter


def bare_loop(given: tuple[str, str, Path, int]) -> float:
    """Steps/s of dm_control itself on one episode: control, state, reward (with the file read beforehand)."""
    domain, task, file, processes = given
    env = suite.load(domain, task)
    env.reset()
    with np.load(file) as episode:
        physics, actions = episode["physics"], episode["action"]
    began = clock(processes)()
    for state, action in zip(physics, actions, strict=True):
        with env.physics.reset_context():
            env.physics.set_control(action)
            env.physics.set_state(state)
        env.task.get_reward(env.physics)
    return len(physics) / (clock(processes)() - began)


def bare_rate(domain: str, task: str, folder: Path, processes: int) -> float:
    """Steps/s of that loop in so many processes at once; medians, summed."""
    files = [file.path for file in list_episodes(folder)][: 8 * processes]
    rates = list(ordered_map(bare_loop, [(domain, task, file, processes) for file in files], processes))
    return processes * float(np.median(rates))


def import_rate(folder: Path, domain: str, task: str, workers: int, relabel: bool) -> float:
    """Steps/s, from when each worker has done its first batch on."""
    environment = dmc_id(f"{domain}_{task}")
    relabeller = Relabeller(environment)
    bounds = [tuple(map(float, bound)) for bound in relabeller.action_bounds()]
    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as target:
        build_from_exorl(
            folder,
            Path(target) / "store",
            task=f"{domain}_{task}",
            action=ActionSpec(ActionKind.continuous, len(bounds[0]), *bounds),
            environment=environment,
            relabel=relabeller if relabel else None,
            workers=workers,
            progress=lambda done, total: seen.append((clock(workers)(), done)),
        )
    (first, before), (last, done) = seen[workers - 1], seen[-1]
    return STEPS * (done - before) / (last - first)


def plain_read_rate(folder: Path) -> float:
    """Steps/s of `numpy.load` of what an import as recorded needs."""
    files = list_episodes(folder)
    began = clock(1)()
    for file in files:
        with np.load(file.path) as episode:
            _ = [episode[key] for key in COLUMNS]
    return STEPS * len(files) / (clock(1)() - began)


def measure(domain: str, recorded: str, task: str, episodes: int, repeats: int) -> dict[str, float]:
    """The best of `repeats` of each measurement, steps/s, and their ratios."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "set"
        record(folder, domain, recorded, episodes)
        measurements = {
            "numpy.load": lambda: plain_read_rate(folder),
            "as recorded": lambda: import_rate(folder, domain, task, 1, relabel=False),
            "bare loop, 1 process": lambda: bare_rate(domain, task, folder, 1),
            "relabelled, 1 worker": lambda: import_rate(folder, domain, task, 1, relabel=True),
            "bare loop, 2 processes": lambda: bare_rate(domain, task, folder, 2),
            "relabelled, 2 workers": lambda: import_rate(folder, domain, task, 2, relabel=True),
        }
        found: dict[str, list[float]] = {name: [] for name in measurements}
        for _ in range(repeats):
            for name, run in measurements.items():
                found[name].append(run())
        (file, *_) = list_episodes(folder)
        with np.load(file.path) as episode:
            step_bytes = 4 * (episode["observation"].shape[1] + episode["action"].shape[1] + 2)
    best = {name: max(values) for name, values in found.items()}
    return {
        **{f"{name}, steps/s": round(value) for name, value in best.items()},
        "as recorded, MB/s of store columns": round(best["as recorded"] * step_bytes / 1e6, 1),
        "as recorded / numpy.load": round(best["as recorded"] / best["numpy.load"], 2),
        "1 worker / bare": round(best["relabelled, 1 worker"] / best["bare loop, 1 process"], 2),
        "2 workers / 2 bare": round(best["relabelled, 2 workers"] / best["bare loop, 2 processes"], 2),
    }


def main(episodes: int = 64, repeats: int = 3) -> None:
    """Measure every task, and write results/exorl.json."""
    results = {}
    for domain, recorded, task in TASKS:
        results[f"{domain} {task}"] = measure(domain, recorded, task, episodes, repeats)
        print(domain, json.dumps(results[f"{domain} {task}"], indent=1), flush=True)
    target = Path(__file__).parent / "results" / "exorl.json"
    target.write_text(json.dumps({"episodes": episodes, "repeats": repeats, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
