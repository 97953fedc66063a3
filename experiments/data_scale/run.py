"""Chains drawn from a store of 10 million steps: how soon it opens, chains a second, and memory beside the page cache.

10,000 episodes of 1,000 steps, 24 observations and 6 actions (1.3 GB), written to `$RINGRL_DATA` or to a temporary
folder and removed afterwards. Then, in a process of its own, chains of 128 trajectories, one a batch:

- open: `EpisodeStore.open` and `ChainSampler`, seconds;
- cold: the first chains, one thread, after the system was told to forget the files (what the disk gives);
- one thread: `ChainSampler.batch` in a row; two threads: through `make_loader(threads=2)`, in rounds turn about with
  `by step`, the general way that gathers step by step, on one thread. Chains a second by the clock, best and median of
  the rounds, and by the processor time of the process, which other work on the machine touches less;
- memory, in streams that are not timed: the most that was resident at once without a file behind it (`Anonymous` of
  Linux's smaps_rollup: the page cache holds the rest), its growth from before the store was opened, and the most mapped
  pages of files.

Prints JSON, and writes it to results/data_scale.json. `--smoke`: small, and writes nothing.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.random_data import write_random_store
from experiments.lib.results import make_parser, write_results

RESULTS = Path(__file__).parent / "results" / "data_scale.json"
EPISODES, EPISODE_STEPS, OBSERVATION_SIZE, ACTION_SIZE = 10_000, 1000, 24, 6
TRAJECTORIES = 128
CHAINS, ROUNDS = 40, 8  # of the measured streams; together they read every episode many times
GOALS = {"open_seconds": 1.0, "chains_per_second": 50.0, "anonymous_mb": 500.0}


def forget_files(path: Path) -> None:
    """Ask the system to drop the files of a store from its page cache."""
    for file in path.glob("*.npy"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_mb() -> dict[str, float]:
    """Resident memory of this process, MB: without a file behind it, and mapped from files."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    anonymous = kilobytes["Anonymous"] * 1024 / 1e6
    return {"anonymous": anonymous, "mapped": kilobytes["Rss"] * 1024 / 1e6 - anonymous}


@contextlib.contextmanager
def peak_memory(peak: dict[str, float]) -> Iterator[None]:
    """Raises the figures in `peak` to the most seen meanwhile, every 20 ms."""
    done = threading.Event()

    def watch() -> None:
        while True:
            for name, value in resident_mb().items():
                peak[name] = max(peak.get(name, 0.0), value)
            if done.wait(0.02):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def timed(draw: Callable[[], object], chains: int) -> tuple[float, float]:
    """Chains a second by the clock and by processor time."""
    began, worked = time.perf_counter(), time.process_time()
    draw()
    return chains / (time.perf_counter() - began), chains / (time.process_time() - worked)


def measure(path: Path, trajectories: int, chains: int, rounds: int) -> dict[str, Any]:
    """All figures, in this process."""
    import grain  # noqa: F401  (not part of the first round)

    from ringrl.data import ChainSampler, EpisodeStore, make_loader
    from ringrl.data.config import ChainConfig
    from ringrl.types import Normalization

    scale = Normalization(np.full(OBSERVATION_SIZE, 0.1, np.float32), np.full(OBSERVATION_SIZE, 0.9, np.float32))
    before, began = resident_mb(), time.perf_counter()
    store = EpisodeStore.open(path)
    sampler = ChainSampler(store, ChainConfig(trajectories), scale)
    opened = time.perf_counter() - began

    few = max(1, chains // 4)

    def in_a_row(first: int) -> None:
        for index in range(first, first + chains):
            sampler.batch(0, index, 1)

    def by_step(first: int) -> None:
        for index in range(first, first + few):
            sampler._by_step.chains(sampler._trajectories(*sampler.draw(0, index, 1)), np.arange(sampler.steps))

    def loaded(first: int) -> None:
        with make_loader(sampler, seed=0, batch_size=1, start=first, stop=first + chains, threads=2) as loader:
            for _ in loader:
                pass

    peak: dict[str, float] = {}
    ways = {
        "one_thread": (in_a_row, chains),
        "two_threads": (loaded, chains),
        "by_step": (by_step, max(1, chains // 4)),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    cold = timed(lambda: in_a_row(10**6), chains)[0]
    for index in range(rounds):
        for name, (draw, count) in ways.items():
            rates[name].append(timed(lambda draw=draw, first=index * chains: draw(first), count))
    peak: dict[str, float] = {}
    with peak_memory(peak):  # by itself: reading these figures takes time
        for first in range(2):
            in_a_row(first * chains)
            loaded(first * chains)
    by_clock = {name: [clock for clock, _ in pairs] for name, pairs in rates.items()}
    fastest = max(*by_clock["one_thread"], *by_clock["two_threads"])
    return {
        "open_seconds": round(opened, 4),
        "cold_chains_per_second": round(cold, 1),
        "chains_per_second": {name: round(max(values), 1) for name, values in by_clock.items()},
        "median_chains_per_second": {name: round(float(np.median(values)), 1) for name, values in by_clock.items()},
        "chains_per_processor_second": {
            name: round(max(worked for _, worked in pairs), 1) for name, pairs in rates.items()
        },
        "steps_per_second": round(fastest * sampler.steps),
        "anonymous_mb": round(peak["anonymous"], 1),
        "anonymous_growth_mb": round(peak["anonymous"] - before["anonymous"], 1),
        "mapped_mb": round(peak["mapped"], 1),
        "store_mb": round(store.step_bytes / 1e6, 1),
    }


def main() -> None:
    """Write the store, measure in a fresh process, remove the store."""
    parser = make_parser(__doc__)
    parser.add_argument("--measure", type=Path, metavar="STORE", help="figures of a store already there, as JSON")
    options = parser.parse_args()
    sizes = (4, 2, 1) if options.smoke else (TRAJECTORIES, CHAINS, ROUNDS)
    if options.measure:
        print(json.dumps(measure(options.measure, *sizes)))
        return
    episodes = 20 if options.smoke else EPISODES
    root = Path(os.environ.get("RINGRL_DATA") or tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data_scale-", dir=root) as folder:
        path = Path(folder) / "store"
        began = time.perf_counter()
        of_a_step = {"observation_size": OBSERVATION_SIZE, "action_size": ACTION_SIZE}
        write_random_store(path, episodes=episodes, episode_steps=EPISODE_STEPS, **of_a_step, distinct=False)
        written = time.perf_counter() - began
        forget_files(path)
        command = [sys.executable, __file__, "--measure", str(path), *(["--smoke"] if options.smoke else [])]
        load = os.getloadavg()[0]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures = {"write_seconds": round(written, 2), **json.loads(done.stdout)}
    figures["load_average_before"] = round(load, 1)
    sizes = {"episodes": episodes, "episode_steps": EPISODE_STEPS, "trajectories": sizes[0]}
    print(json.dumps({"sizes": sizes, "goals": GOALS, "figures": figures}, indent=1))
    if not options.smoke:
        write_results(RESULTS, "data_scale", sizes=sizes, goals=GOALS, figures=figures)


if __name__ == "__main__":
    main()
