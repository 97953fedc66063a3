"""The README's first command: collect, train four agents, roll them out on goals never trained on, compare.

It only types commands that you can type yourself, and shows each before it runs.
"""

import argparse
import datetime
import shlex
import signal
import subprocess
import sys
from pathlib import Path

SIZES = {"full": ("hidden_goal_point_maze", "quickstart"), "smoke": ("quickstart_smoke", "quickstart_smoke")}
NEXT = """
What you can type next (ringrl is in .venv/bin):
  the curves of all four agents:  tensorboard --logdir {sweep}
  more trials in one context:     ringrl eval checkpoint={sweep}/at_seed0 evaluation.trials=32
  another environment:            ringrl collect collection=dark_room && ringrl train experiment=dark_room
  your own Minari data set:       ringrl train data.name=NAMESPACE/NAME-v0
  a sweep, and its table:         ringrl train -m seed=0,1,2 agent=at,dt experiment={experiment}
                                  ringrl report name={experiment}
"""


def main() -> int:
    """Run the three steps; stops at the first that fails, with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    collection, experiment = SIZES[parser.parse_args().size]
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    sweep = Path("runs") / "train" / experiment / now
    report = Path("runs") / "report" / experiment / now
    steps = (
        f"collect collection={collection} reuse=true",
        f"train -m agent=at,dt,bc,bc10 experiment={experiment} hydra.sweep.dir={sweep}",
        f"report runs=[{sweep}] name={experiment} hydra.run.dir={report}",
    )
    for step in steps:
        print(f"\n$ ringrl {step}", flush=True)
        code = run_to_its_end([sys.executable, "-m", "ringrl.cli", *shlex.split(step)])
        if code:
            return code
    print(f"\npicture: {report / 'figure.png'}\ntable: {report / 'table.md'}\nTensorBoard logs: {sweep}")
    print(NEXT.format(sweep=sweep, experiment=experiment), end="")
    return 0


def run_to_its_end(command: list[str]) -> int:
    """A command's exit code; Ctrl-C is left to the command, which saves and says how to go on before it ends."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler, not SIG_IGN, which the command would inherit
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
