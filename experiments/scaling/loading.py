"""What one process holds to build one device's slice of a chain of 16 million tokens, over 1, 2, 4 and 8 devices.

A chain of 4,194 trajectories of 1,000 steps, four tokens a step, from a memory-mapped store. Each row is a process of
its own that builds the slice of one of n devices (n = 1: the whole chain), of a mesh of ring=n, in a layout:

- arrays: bytes of the slice itself, what goes to the device;
- allocated: the most that was allocated at once from the draw to the finished slice, by tracemalloc, which counts every
  buffer of NumPy: the same in every run, and without the store's pages, which the page cache owns;
- resident: what the process's resident memory grew by at its peak, by the kernel, mapped pages of the store included
  (held to `RESIDENT_BYTES`, 100 MB, as the sampler reckons them, and to 130 to 170 MB as Linux 6.18 maps them), in a
  first build without tracemalloc, whose seconds are given.

Not in these: the order of dealing, 8 bytes a step of the whole chain, which a process makes once and cuts to its parts
(`order_mb` in the JSON), and the numbers of episodes and lengths, 6 words an episode of the store.

Writes results/loading.json and prints a table. `--smoke`: small, and writes nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.random_data import write_random_store
from experiments.lib.results import make_parser, make_table, write_results

RESULTS = Path(__file__).parent / "results" / "loading.json"
TOKENS_PER_STEP, EPISODE_STEPS, OBSERVATION_SIZE, ACTION_SIZE = 4, 1000, 24, 6
DEVICES = (1, 2, 4, 8)
COLUMNS = ("layout", "devices", "tokens", "arrays_mb", "allocated_mb", "resident_mb", "seconds")


def build_slice(path: Path, episodes: int, layout: str, devices: int) -> dict[str, Any]:
    """One row of the table: the slice of the middle one of the devices, in this process."""
    import jax

    from ringrl.data import ChainSampler, EpisodeStore
    from ringrl.data.config import ChainConfig
    from ringrl.ops import Layout, Strategy, step_order
    from ringrl.parallel import make_mesh
    from ringrl.parallel.batches import BatchParts
    from ringrl.types import Normalization

    scale = Normalization(np.zeros(OBSERVATION_SIZE, np.float32), np.ones(OBSERVATION_SIZE, np.float32))
    sampler = ChainSampler(EpisodeStore.open(path), ChainConfig(trajectories=episodes), scale)
    mesh = make_mesh(ring=devices)
    order = step_order(Strategy.ring, Layout(layout), sampler.steps, mesh)
    part = BatchParts(mesh, 1, order).parts[devices // 2]
    del order
    sampler.batch(0, 0, 1, part[0], part[1][:100])  # what the first call of all takes

    before, began = resident_bytes("VmRSS"), time.perf_counter()
    chain = sampler.batch(0, 0, 1, *part)
    seconds, resident = time.perf_counter() - began, resident_bytes("VmHWM") - before
    arrays = sum(array.nbytes for array in jax.tree.leaves(chain))
    del chain
    tracemalloc.start()
    sampler.batch(1, 0, 1, *part)
    allocated = tracemalloc.get_traced_memory()[1]
    sizes = {"arrays_mb": arrays, "allocated_mb": allocated, "resident_mb": resident}
    return {
        "layout": layout,
        "devices": devices,
        "tokens": TOKENS_PER_STEP * len(part[1]),
        **{name: round(size / 1e6, 1) for name, size in sizes.items()},
        "seconds": round(seconds, 2),
    }


def resident_bytes(name: str) -> int:
    """Of this process: VmRSS, what is resident now; VmHWM, the most that ever was."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def in_a_process(*arguments: object) -> dict[str, Any]:
    """`build_slice` of these arguments in a fresh process with eight virtual devices."""
    command = [sys.executable, __file__, "--slice", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(max(DEVICES))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    return make_table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])


def main() -> None:
    """Every layout over every number of devices, one after the other."""
    parser = make_parser(__doc__)
    parser.add_argument("--slice", nargs=4, metavar=("STORE", "EPISODES", "LAYOUT", "DEVICES"), help="one row, as JSON")
    options = parser.parse_args()
    if options.slice:
        store, episodes, layout, devices = options.slice
        print(json.dumps(build_slice(Path(store), int(episodes), layout, int(devices))))
        return
    episodes = 40 if options.smoke else 4194
    layouts = ("zigzag",) if options.smoke else ("contiguous", "striped", "zigzag")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        sizes = {"observation_size": OBSERVATION_SIZE, "action_size": ACTION_SIZE}
        write_random_store(store, episodes=episodes, episode_steps=EPISODE_STEPS, **sizes)
        rows = [in_a_process(store, episodes, layout, devices) for layout in layouts for devices in DEVICES]
    print(table(rows))
    if options.smoke:
        return
    sizes |= {"trajectories": episodes, "episode_steps": EPISODE_STEPS, "tokens_per_step": TOKENS_PER_STEP}
    sizes["order_mb"] = episodes * EPISODE_STEPS * 8 / 1e6
    write_results(RESULTS, "loading", sizes=sizes, rows=rows)


if __name__ == "__main__":
    main()
