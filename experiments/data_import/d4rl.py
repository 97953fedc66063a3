"""How fast D4RL's HDF5 files become stores, next to a plain h5py read of the same columns.

Usage: python experiments/data_import/d4rl.py [--steps 1000000] [--repeats 5] [--folder FOLDER]
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from ringrl.data.sources.d4rl import build_from_d4rl

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from d4rl_files import write_columns

TASK = "hopper-medium-v2"
COLUMNS = ("observations", "actions", "rewards", "terminals", "timeouts")


def hopper_columns(steps: int, length: int) -> dict[str, np.ndarray]:
    """Noise in the sizes of a hopper file: episodes of `length` steps, every other one terminal."""
    rng = np.random.default_rng(0)
    lasts = np.arange(length - 1, steps, length)
    columns = {
        "observations": rng.normal(size=(steps, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminals": np.zeros(steps, bool),
        "timeouts": np.zeros(steps, bool),
    }
    columns["terminals"][lasts[::2]] = True
    columns["timeouts"][lasts[1::2]] = True
    return columns


def plain_read(file: Path) -> int:
    """Read the columns that the import reads; their bytes."""
    with h5py.File(file) as columns:
        return sum(columns[name][:].nbytes for name in COLUMNS)


def compare(file: Path, store: Path, repeats: int) -> tuple[int, np.ndarray]:
    """Bytes, and the least seconds of a plain read and of an import, taken in turn: wall and CPU, (2, 2)."""
    seconds, size = np.full((2, 2), np.inf), 0
    for _ in range(repeats):
        for row, job in enumerate((lambda: plain_read(file), lambda: build_from_d4rl(file, TASK, store))):
            start = np.array([time.perf_counter(), time.process_time()])
            result = job()
            seconds[row] = np.minimum(seconds[row], [time.perf_counter(), time.process_time()] - start)
            size = result if isinstance(result, int) else size
        shutil.rmtree(store)
    return size, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write (about 200 bytes a step); a temporary folder")
    arguments = parser.parse_args()
    print("file, steps an episode: plain read MB/s, import MB/s, ratio; CPU seconds of the read, of the import")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for compression in ("gzip", None):
            for length in (1000, 20):
                file = Path(folder) / "hopper_medium-v2.hdf5"
                write_columns(file, hopper_columns(arguments.steps, length), compression)
                size, seconds = compare(file, Path(folder) / "store", arguments.repeats)
                (read, read_cpu), (imported, import_cpu) = seconds
                print(
                    f"{compression or 'plain'}, {length}: {size / read / 1e6:.0f}, {size / imported / 1e6:.0f}, "
                    f"{read / imported:.2f}; {read_cpu:.2f}, {import_cpu:.2f} (load {os.getloadavg()[0]:.0f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
