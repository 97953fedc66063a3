"""Finds the gait of ringrl_envs.controllers.ant_gait by the cross-entropy method; see README.md beside this."""

import argparse
import dataclasses
import time
from pathlib import Path

import gymnasium
import numpy as np
from mujoco import MjData, MjModel, mj_resetData, mj_step  # pyright: ignore[reportAttributeAccessIssue]
from ringrl_envs.controllers.ant_gait import STEP, Gait, upright, walk

# Where a first, shorter search arrived, which walked straight on and began from guesses.
FIRST = Gait(2.3, 0.9, 0.86, 0.17, 3.1, 0.4, 1.7, 1.0, 0.13, 1.6, 0.1, 0.0, 0.0)
SPREAD = Gait(0.4, 0.2, 0.15, 0.1, 0.5, 0.1, 0.5, 0.3, 0.03, 0.4, 0.03, 0.3, 0.06)
LOW = Gait(0.5, 0.0, 0.4, -1.0, -10.0, -1.0, -10.0, 0.1, 0.0, 0.1, 0.0, -2.0, -0.5)
HIGH = Gait(4.5, 2.0, 1.3, 1.0, 10.0, 1.0, 10.0, 3.0, 0.3, 3.0, 0.3, 2.0, 0.5)
TURN_EVERY = 35  # steps
SUBSTEPS = 5  # of 0.01 seconds, as in AntMaze


def vector(gait: Gait) -> np.ndarray:
    """Its numbers in order."""
    return np.array(dataclasses.astuple(gait))


def evaluate(model, data, gait: Gait, steps: int, noise: float, seed: int) -> float:
    """Meters per second along a bearing that turns at random every TURN_EVERY steps; less for tilting.

    A fraction `noise` of the actions is uniformly random; half of the time the strides are shorter.
    """
    rng = np.random.default_rng(seed)
    mj_resetData(model, data)
    data.qpos[:] = model.numeric_data[: model.nq]
    data.qpos[7:] = 0.0
    progress, tilt, phase, bearing, effort = 0.0, 0.0, 0.0, 0.0, 1.0
    for step in range(steps):
        if step % TURN_EVERY == 0:
            bearing, effort = rng.uniform(-np.pi, np.pi), rng.choice([0.5, 1.0])
        before = data.qpos[:2].copy()
        body = np.concatenate([data.qpos[2:], data.qvel])[None]
        action = walk(gait, np.array([phase]), body, np.array([bearing]), np.array([effort]))[0]
        data.ctrl[:] = rng.uniform(-1, 1, 8) if rng.uniform() < noise else action
        mj_step(model, data, SUBSTEPS)
        phase += 2 * np.pi * gait.frequency * STEP
        standing = float(upright(data.qpos[None, 3:7])[0])
        if standing < 0:
            return progress / (steps * STEP) - 2.0 * (1 - step / steps) - 2.0 * tilt / steps
        tilt += max(0.0, 0.9 - standing)
        progress += float((data.qpos[:2] - before) @ [np.cos(bearing), np.sin(bearing)])
    return progress / (steps * STEP) - 2.0 * tilt / steps


def main() -> None:
    """Prints the best gait of every round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--steps", type=int, default=210)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    model = MjModel.from_xml_path(str(Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"))
    data = MjData(model)
    rng = np.random.default_rng(arguments.seed)
    mean, spread = vector(FIRST), vector(SPREAD)
    least = 0.05 * spread
    begun = time.monotonic()
    for round_index in range(arguments.rounds):
        candidates = np.clip(rng.normal(mean, spread, (arguments.population, len(mean))), vector(LOW), vector(HIGH))
        candidates[0] = np.clip(mean, vector(LOW), vector(HIGH))
        scores = [
            np.mean(
                [
                    evaluate(model, data, Gait(*candidate), arguments.steps, arguments.noise, 10 * round_index + i)
                    for i in range(2)
                ]
            )
            for candidate in candidates
        ]
        best = np.argsort(scores)[::-1][: arguments.population // 5]
        mean, spread = candidates[best].mean(axis=0), candidates[best].std(axis=0) + least
        seconds = time.monotonic() - begun
        print(f"{round_index} {seconds:.0f} s: best {scores[best[0]]:.2f}, mean's {scores[0]:.2f} m/s", flush=True)
        print(f"  mean {np.round(mean, 3).tolist()}\n  best {np.round(candidates[best[0]], 3).tolist()}", flush=True)
        if seconds > arguments.seconds:
            break


if __name__ == "__main__":
    main()
