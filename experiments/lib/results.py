"""What a script takes and leaves: options, Markdown tables, and JSON files of results."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.lib.machine import describe_machine
from ringrl.files import write_atomically


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--smoke`: everything small and once, for a test; its figures mean nothing and are not written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small and once; writes no figures")
    return parser


def write_results(path: Path, experiment: str, **content: Any) -> None:
    """Writes a results file whole: the experiment's name and the machine, then the content."""
    text = json.dumps({"experiment": experiment, "machine": describe_machine(), **content}, indent=1)
    write_atomically(path, text + "\n")


def make_goal(value: float, bound: float, *, at_least: bool) -> dict[str, Any]:
    """A figure beside what was hoped of it."""
    met = value >= bound if at_least else value <= bound
    return {"value": value, "goal": f"{'>=' if at_least else '<='} {bound:g}", "met": bool(met)}


def print_goals(name: str, goals: dict[str, dict[str, Any]]) -> None:
    """Prints a line for each goal."""
    for what, found in goals.items():
        print(f"{name}: {what}: {found['value']:.3g} (goal {found['goal']}: {'met' if found['met'] else 'NOT MET'})")


def make_table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are aligned to the left, the others to the right."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, rule, *rows))
