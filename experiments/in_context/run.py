"""More trajectories in context, better trials, on goals never seen in training: every run of the claim.

    python experiments/in_context/run.py --environments dark_room --jobs 2

trains and evaluates every variant and seed through `ringrl train` (a run that is done is not done again), then writes
`results/<environment>.json`, its tables and its figures beside this file. `--gather` only writes them anew.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import platform
import queue
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

from ringrl.evaluation import figures, report, tables
from ringrl.evaluation.report import Group

HERE = Path(__file__).parent
ENVIRONMENTS = ("dark_room", "dark_room_sparse", "hidden_goal_point_maze")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One curve: an agent and what is different about it."""

    label: str
    agent: str
    overrides: str = ""
    family: str = "controls"  # the figure it stands in


def chains_of(trajectories: int) -> str:
    """N trajectories a chain, 256 episodes a batch whatever N."""
    return f"chain.trajectories={trajectories} training.batch_size={256 // trajectories}"


SHORT = "training.steps=400"
N8 = f"{chains_of(8)} {SHORT} evaluation.trials=8"
VARIANTS = {
    "at_16": Variant("AT", "at", family="main"),
    "at_16_masked": Variant("AT, current trial only", "at", "chain.context=trial training.steps=1000", "main"),
    "dt": Variant("DT", "dt", family="main"),
    "bc": Variant("BC", "bc", family="main"),
    "bc10": Variant("BC-10%", "bc10", family="main"),
    **{
        f"at_n{count}": Variant(f"N = {count}", "at", f"{chains_of(count)} {SHORT}", "context")
        for count in (1, 2, 4, 8, 16)
    },
    "full": Variant("AT", "at", N8),
    "no_return_to_go": Variant("no return-to-go", "at", f"{N8} agent.return_to_go=false"),
    "no_relabelling": Variant("no relabelling", "at", f"{N8} chain.relabel=false"),
    "shuffled": Variant("shuffled order", "at", f"{N8} chain.order=random"),
    "masked": Variant("current trial only", "at", f"{N8} chain.context=trial"),
    "tokens_1": Variant("1 token a step", "at", N8, "tokens"),
    "tokens_2": Variant("2 tokens a step", "at", f"{N8} agent.tokens_per_step=2", "tokens"),
    "tokens_4": Variant("4 tokens a step", "at", f"{N8} agent.tokens_per_step=4", "tokens"),
}
SAME_RUN = {"tokens_1": "full"}  # the same training under another name
TITLES = {
    "main": "16 trials in one context",
    "context": "Context of N trajectories",
    "controls": "What it takes (N = 8)",
    "tokens": "Tokens a step (N = 8)",
}


def main() -> int:
    """Run what is missing, then gather; 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--runs", type=Path, default=Path("runs/in_context"))
    parser.add_argument("--gather", action="store_true", help="run nothing, only gather what is there")
    options = parser.parse_args()
    failed = 0
    if not options.gather:
        for environment in options.environments:
            failed += _type(f"collect collection={environment} reuse=true")
        jobs = [
            (environment, name, seed)
            for environment in options.environments
            for seed in options.seeds
            for name in options.variants
            if name not in SAME_RUN
        ]
        cores = queue.SimpleQueue()
        for share in shares_of_cores(options.jobs):
            cores.put(share)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            failed += sum(pool.map(lambda job: train(options.runs, cores, *job), jobs))
    for environment in options.environments:
        gather(options.runs, environment)
    return int(failed > 0)


def shares_of_cores(jobs: int) -> list[set[int]]:
    """This machine's cores dealt to `jobs` runs at once; shared by all where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[job::jobs]) or set(cores) for job in range(jobs)]


def train(runs: Path, cores: "queue.SimpleQueue[set[int]]", environment: str, name: str, seed: int) -> int:
    """One run in its own folder on its share of the cores, unless its summary is there; returns its exit code."""
    folder, variant = runs / environment / name / f"seed_{seed}", VARIANTS[name]
    if (folder / "summary.json").exists():
        return 0
    words = (
        f"train experiment={environment} agent={variant.agent} {variant.overrides} seed={seed} "
        f"label='{name}' hydra.run.dir={folder} resume=auto"
    )
    share = cores.get()
    try:
        return _type(words, log=folder.with_suffix(".log"), share=share)
    finally:
        cores.put(share)


def _type(words: str, log: Path | None = None, share: set[int] | None = None) -> int:
    """`ringrl WORDS`, with its output in a file and on a share of the cores where they are named."""
    print(f"$ ringrl {words}", flush=True)
    command = [sys.executable, "-m", "ringrl.cli", *shlex.split(words)]
    if share:
        command = ["taskset", "--cpu-list", ",".join(map(str, sorted(share))), *command]
    if log is None:
        return subprocess.run(command, check=False).returncode
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        return subprocess.run(command, check=False, stdout=file, stderr=subprocess.STDOUT).returncode


def gather(runs: Path, environment: str) -> None:
    """results/<environment>.json, and a table and a figure a family; what was not run here stays as it was."""
    results = HERE / "results"
    file = results / f"{environment}.json"
    details = json.loads(file.read_text())["variants"] if file.exists() else {}
    families: dict[str, list[Group]] = {}
    for name, variant in VARIANTS.items():
        folder = runs / environment / SAME_RUN.get(name, name)
        if not list(folder.glob("seed_*/summary.json")):
            continue
        found = report.find_runs([folder])
        (group,) = report.group_runs(found, normalized=environment == "hidden_goal_point_maze")
        families.setdefault(variant.family, []).append(dataclasses.replace(group, label=variant.label))
        details[name] = {
            "label": variant.label,
            "family": variant.family,
            "overrides": variant.overrides,
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "seeds": list(group.seeds),
            "normalized": group.normalized,
            **group.scores.to_json(),
            "train": [run["train"] for run in found],
            "git_commit": sorted({str(run["git_commit"]) for run in found}),
        }
    results.mkdir(exist_ok=True)
    for family, groups in families.items():
        if len(groups) > 1:
            page = f"## {TITLES[family]}\n\n{tables.format_markdown(groups)}"
            (results / f"{environment}_{family}.md").write_text(page)
            figures.save_png(report.plot_groups(groups), results / f"{environment}_{family}.png")
    if details:
        file.write_text(json.dumps({"environment": environment, "variants": details}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
