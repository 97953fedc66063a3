"""Kill a training run at random moments, saves included, restart it, and compare it with one left alone.

A run is the same command again and again, `trainee.py FOLDER STEPS`, killed (SIGKILL) some times and then left to end;
new runs begin until there were as many kills as asked for. After each kill every checkpoint that stands is checked
against its checksums. A kill counts as during a save where it leaves an `.unfinished_` folder that was not there
before.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.lib.machine import describe_machine
from experiments.lib.random_data import write_random_store
from ringrl.training.array_store import verify_arrays
from ringrl.training.checkpoint_folder import CheckpointFolder

HERE = Path(__file__).parent
STARTING_SHARE = 0.2  # of the kills: at any moment from the start of the process; the others: once it trains
STARTING_SECONDS, TRAINING_SECONDS = 4.0, 1.5  # within which, uniformly
STORE = {"episodes": 64, "episode_steps": 10, "observation_size": 4, "action_size": 2, "tasks": 8}  # the trainee's


@dataclasses.dataclass
class Counts:
    """What happened, over all runs."""

    runs: int = 0
    kills: int = 0
    kills_while_starting: int = 0  # before the first step
    kills_during_a_save: int = 0
    restarts: int = 0
    restarts_from_a_checkpoint: int = 0
    losses_compared: int = 0
    checkpoints_checked_after_kills: int = 0
    damaged_checkpoints: int = 0  # found by that check, or passed over by a restart
    lost_runs: int = 0  # ended with an error, or began before the newest checkpoint
    runs_unlike_the_uninterrupted: int = 0  # in a loss or a bit of the final state


def start(folder: Path, steps: int, log: Path) -> subprocess.Popen[bytes]:
    """The same command each time."""
    with log.open("wb") as output:
        command = [sys.executable, str(HERE / "trainee.py"), str(folder), str(steps)]
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def uninterrupted(root: Path, steps: int) -> tuple[dict[str, Any], dict[int, str]]:
    """Final digests and every loss of a run left alone; what it compiles is kept for the others."""
    folder, log = root / "uninterrupted", root / "uninterrupted.log"
    write_random_store(folder / "store", **STORE)
    if start(folder, steps, log).wait():
        raise SystemExit(log.read_text())
    return json.loads((folder / "final.json").read_text()), read_log(log)[1]


def read_log(log: Path) -> tuple[int | None, dict[int, str], int]:
    """Step at which a process began (None: not reached), its losses, and the checkpoints it passed over."""
    # A killed process may leave half a line.
    lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    begun = [int(line[1]) for line in lines if line[0] == "begin"]
    losses = {int(line[1]): line[2] for line in lines if line[0] == "loss"}
    return (begun[0] if begun else None), losses, sum(line[0] == "damaged" for line in lines)


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """Folders of checkpoints on their way, told apart from others of the same name."""
    return {(path.name, path.stat().st_ino) for path in (folder / "checkpoints").glob(".unfinished_*")}


def kill_at_random(process: subprocess.Popen[bytes], log: Path, moments: random.Random) -> bool:
    """Whether the process was killed; False where it ended before."""
    if moments.random() < STARTING_SHARE:
        delay = moments.uniform(0, STARTING_SECONDS)
    else:
        delay = moments.uniform(0, TRAINING_SECONDS)
        while process.poll() is None and b"\nloss" not in log.read_bytes():
            time.sleep(0.005)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait() < 0
    return False


def check_standing(folder: Path, counts: Counts) -> None:
    """Check every checkpoint that bears its name against its checksums."""
    checkpoints = CheckpointFolder(folder / "checkpoints")
    for step in checkpoints.steps():
        counts.checkpoints_checked_after_kills += 1
        try:
            for part, checksums in checkpoints.metadata(step)["checksums"].items():
                verify_arrays(checkpoints.path(step) / part, checksums)
        except (OSError, ValueError, KeyError) as error:
            counts.damaged_checkpoints += 1
            print(f"damaged: step {step} of {folder}: {error}", flush=True)


def killed_run(
    root: Path, steps: int, kills: int, moments: random.Random, counts: Counts, expected: tuple[dict, dict]
) -> None:
    """One run to its end, with at most so many kills."""
    folder = root / f"run_{counts.runs}"
    write_random_store(folder / "store", **STORE)
    counts.runs += 1
    alike, killed = True, 0
    for attempt in range(kills + 1):
        log = root / f"{folder.name}_{attempt}.log"
        newest = max(CheckpointFolder(folder / "checkpoints").steps(), default=0)
        left = unfinished(folder)
        process = start(folder, steps, log)
        ended = not kill_at_random(process, log, moments) if killed < kills else process.wait() is not None
        begun, losses, passed_over = read_log(log)
        counts.restarts += attempt > 0
        counts.restarts_from_a_checkpoint += attempt > 0 and (begun or 0) > 0
        counts.losses_compared += len(losses)
        counts.damaged_checkpoints += passed_over
        alike &= all(expected[1][step] == loss for step, loss in losses.items())
        lost = (begun is not None and begun < newest) or (ended and process.returncode != 0)
        if ended:
            if lost:
                counts.lost_runs += 1
                print(log.read_text(), flush=True)
            break
        counts.lost_runs += lost
        killed += 1
        counts.kills += 1
        counts.kills_while_starting += not losses
        counts.kills_during_a_save += bool(unfinished(folder) - left)
        check_standing(folder, counts)
    final = folder / "final.json"
    alike &= final.exists() and json.loads(final.read_text()) == expected[0]
    counts.runs_unlike_the_uninterrupted += not alike
    print(f"{folder.name}: killed {killed} times, {'as' if alike else 'NOT as'} the uninterrupted", flush=True)


def main() -> int:
    """Kill as often as asked, print and write the counts; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-per-run", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120, help="of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "restart.json")
    options = parser.parse_args()
    moments, counts, began = random.Random(options.seed), Counts(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        expected = uninterrupted(root, options.steps)
        while counts.kills < options.kills:
            before = counts.kills
            kills = min(options.kills_per_run, options.kills - counts.kills)
            killed_run(root, options.steps, kills, moments, counts, expected)
            if counts.kills == before:
                raise SystemExit("A run ended before it could be killed; give more --steps.")
    result = {
        **dataclasses.asdict(counts),
        "steps_per_run": options.steps,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "machine": describe_machine(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return int(bool(counts.damaged_checkpoints or counts.lost_runs or counts.runs_unlike_the_uninterrupted))


if __name__ == "__main__":
    sys.exit(main())
