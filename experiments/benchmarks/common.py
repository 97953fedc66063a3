"""What the benchmarks share: interleaved timing, the machine, and one JSON file per benchmark."""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from ringrl.agents import AgentConfig, SequenceAgent, make_agent
from ringrl.cli.compose import conf_folder
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.planning.targets import Target, settle
from ringrl.types import ActionKind, ActionSpec, Context, DataSpec

RESULTS = Path(__file__).parent / "results"
SPEC = DataSpec(4, ActionSpec(ActionKind.continuous, 2, (-1.0, -1.0), (1.0, 1.0)), 20)  # hidden-goal PointMaze's


def arguments(description: str | None) -> argparse.Namespace:
    """`--smoke`: everything once and small, for a test; its figures mean nothing and are not written."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="small and once; writes no figures")
    return parser.parse_args()


def interleaved(candidates: dict[str, Callable[[], float]], repeats: int) -> dict[str, dict[str, Any]]:
    """Runs every candidate in turn, `repeats` times over; seconds of each, so that slow spells hit all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, measure in candidates.items():
            seconds[name].append(measure())
    return {name: {"median": statistics.median(values), "all": values} for name, values in seconds.items()}


def seconds_of(run: Callable[[], object], count: int = 1) -> float:
    """Wall-clock seconds of one of `count` calls in a row; `run` waits for its own result."""
    began = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - began) / count


def goal(value: float, bound: float, *, at_least: bool) -> dict[str, Any]:
    """A figure beside what was hoped of it."""
    met = value >= bound if at_least else value <= bound
    return {"value": value, "goal": f"{'>=' if at_least else '<='} {bound:g}", "met": bool(met)}


def model_config(name: str) -> ModelConfig:
    """The sizes of conf/model/NAME.yaml."""
    return ModelConfig(**yaml.safe_load((conf_folder() / "model" / f"{name}.yaml").read_text()))


def target(name: str) -> Target:
    """The cluster of conf/target/NAME.yaml."""
    return settle(Target(**yaml.safe_load((conf_folder() / "target" / f"{name}.yaml").read_text())))


def agent_with_parameters(model: ModelConfig, attention: AttentionConfig) -> tuple[SequenceAgent, Any]:
    """An untrained Agentic Transformer, one token a step."""
    agent = make_agent(AgentConfig(), model, attention, SPEC, context=Context.chain)
    return agent, jax.jit(agent.init)(jax.random.key(0))


def machine() -> dict[str, Any]:
    """Where and when, and how busy the machine was."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "git_commit": _git_commit(),
    }


def report(name: str, results: dict[str, Any], smoke: bool) -> None:
    """Prints the goals, and writes results/NAME.json unless it was a smoke run."""
    for what, found in results["goals"].items():
        print(f"{name}: {what}: {found['value']:.3g} (goal {found['goal']}: {'met' if found['met'] else 'NOT MET'})")
    if smoke:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"benchmark": name, "machine": machine(), **results}, indent=1) + "\n")
    print(f"{name}: written to {path}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _git_commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
