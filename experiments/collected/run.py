"""Collects the graded sets of the README's table, one `ringrl collect collection=NAME` after another, and counts.

The sets go into the data cache (RINGRL_DATA); one that is there already, made by the same command, is kept. After each
the results are written, so that a run that is cut short leaves what it has.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.cells import CellFile
from experiments.lib.results import make_parser
from ringrl.data import data_root, open_dataset
from ringrl.data.config import DataConfig, Source

HERE = Path(__file__).parent
MINARI = ("antmaze_umaze", "kitchen", "halfcheetah", "hopper", "walker2d", "adroit_pen")
EXORL = ("exorl/cartpole", "exorl/point_mass_maze", "exorl/cheetah", "exorl/walker", "exorl/jaco")
SMOKE = ("steps=64", "episodes_per_task=1", "num_environments=1", "reference_episodes=0", "sac.random_steps=16")
PARTS = 10  # of a set, in the order of collection


def collect(name: str, smoke: bool) -> dict[str, Any]:
    """Run the command; what its summary says, and the mean return of each tenth of a Minari set."""
    words = ["ringrl", "collect", f"collection={name}", "overwrite=true", *(SMOKE if smoke else ())]
    if smoke:
        words.append("++env.kwargs.max_episode_steps=16")
    began = time.perf_counter()
    program = Path(sys.executable).parent / "ringrl"
    done = subprocess.run([program, *words[1:]], cwd=HERE, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")
    seconds = time.perf_counter() - began
    run = max((HERE / "runs" / "collect" / "collect").iterdir(), key=lambda folder: folder.name)
    summary = json.loads((run / "summary.json").read_text())
    row = {key: summary[key] for key in ("dataset", "environment", "episodes", "steps", "mean_return", "best_return")}
    row |= {"seconds": round(seconds), "reference_scores": summary["reference_scores"].get("training")}
    if not name.startswith("exorl/"):
        returns = open_dataset(DataConfig(Source.minari, summary["dataset"])).returns
        row["mean_return_by_tenth"] = [round(float(part.mean()), 2) for part in np.array_split(returns, PARTS)]
    return row


def main() -> None:
    """Collect, print, write."""
    parser = make_parser(__doc__)
    parser.add_argument("collections", nargs="*", help=f"of {', '.join((*MINARI, *EXORL))}; all by default")
    options = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "disable")
    file = CellFile(HERE / "results" / "collected.json", "collected")
    for name in options.collections or (*MINARI, *EXORL):
        row = collect(name, options.smoke)
        print(f"{name}: {row['episodes']} episodes, {row['steps']} steps, mean {row['mean_return']:.1f}, "
              f"best {row['best_return']:.1f}, {row['seconds']} s")  # fmt: skip
        if not options.smoke:
            file.put(name, row)
    print(f"sets: {data_root()}")


if __name__ == "__main__":
    main()
