"""`ringrl bench attention`: speed and memory of attention on this machine, compared with other implementations."""

import contextlib
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from ringrl.cli.attention_benchmark import PUBLISHED, RING, Problem, matmul_gflops, measure
from ringrl.cli.console import output, progress_bar, table_width
from ringrl.config import BenchCommand
from ringrl.errors import RingRLError
from ringrl.evaluation.figures import save_png
from ringrl.evaluation.ratio_figure import plot_ratios
from ringrl.evaluation.summary import git_commit
from ringrl.files import write_atomically
from ringrl.training.device import device_name


def run(command: BenchCommand, folder: Path) -> None:
    """Measure every size in turn; write bench.json after each, and bench.png at the end."""
    console = output()
    use_virtual_devices(max(command.devices))
    problems = [
        Problem(devices, tokens, str(dtype), command.heads, command.head_size, command.block_size)
        for dtype in command.dtypes
        for devices in command.devices
        for tokens in command.tokens
    ]
    results: dict[str, Any] = {"benchmark": "attention", "machine": describe_machine(), "problems": []}
    if command.repeats:
        results["matmul_gflops"] = matmul_gflops(command.repeats)
    with progress_bar("sizes") as advance:
        for done, problem in enumerate(problems):
            advance(done, len(problems))
            results["problems"].append(measure(problem, command))
            write_atomically(folder / "bench.json", json.dumps(results, indent=1) + "\n")
    output(table_width(console)).print(table(results))
    if command.published:
        figure = plot_ratios(
            compute_ratios(results),
            title="Ring attention: published beside RingRL's",
            ylabel="published / RingRL's (above 1: RingRL's needs less)",
        )
        save_png(figure, folder / "bench.png")
    console.print(f"figures: {folder}")


def use_virtual_devices(count: int) -> None:
    """Create the devices of the largest ring, virtual ones on a CPU; raises RingRLError if there are too few."""
    with contextlib.suppress(RuntimeError):  # JAX is already initialized, with its devices
        set_already = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_num_cpu_devices", max(count, set_already))
    if jax.device_count() < count:
        raise RingRLError(
            f"devices={count} is more than the {jax.device_count()} devices here: "
            "give fewer, try virtual ones with JAX_PLATFORMS=cpu, or, in a sweep, give the largest ring first "
            "or run it by itself: JAX keeps the devices that it started with."
        )


def compute_ratios(results: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Ratios by comparison and number of devices: tokens -> theirs / ours."""
    found: dict[str, dict[int, float]] = {}
    for problem in results["problems"]:
        ours, theirs = problem["candidates"][RING], problem["candidates"][PUBLISHED]
        for what, name in (("seconds", "time"), ("temporary_mib", "memory")):
            if what in ours:
                label = f"{name}, {problem['devices']} devices, {problem['dtype']}"
                found.setdefault(label, {})[problem["tokens"]] = theirs[what] / ours[what]
    return found


def table(results: dict[str, Any]) -> Table:
    """A table with a row per size and candidate."""
    shown = Table(box=None)
    for column in ("dtype", "devices", "tokens", "attention", "seconds", "GFLOP/s", "of matmul", "MiB/device", "work"):
        shown.add_column(column, justify="left" if column in ("dtype", "attention") else "right")
    peak = results.get("matmul_gflops")
    for problem in results["problems"]:
        for name, found in problem["candidates"].items():
            timed = ("", "", "")
            if "seconds" in found:
                timed = f"{found['seconds']:.3f}", f"{found['gflops']:.1f}", f"{found['gflops'] / peak:.0%}"
            work = problem["largest_work_in_block_pairs"].get(name, "")
            size = problem["dtype"], str(problem["devices"]), str(problem["tokens"])
            shown.add_row(*size, name, *timed, f"{found['temporary_mib']:.1f}", str(work))
    return shown


def describe_machine() -> dict[str, Any]:
    """The machine, the date, and the machine's load."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": device_name(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "git_commit": git_commit(),
    }
