"""Timing on a machine that others use too: candidates take turns, and medians count."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def measure_interleaved(candidates: dict[str, Callable[[], float]], repeats: int) -> dict[str, dict[str, Any]]:
    """Runs every candidate in turn, `repeats` times over, so that slow spells hit all alike.

    Args:
      candidates: functions that return the seconds of what they measure.
      repeats: rounds.

    Returns:
      For each candidate its `median` and `all` seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, measure in candidates.items():
            seconds[name].append(measure())
    return {name: {"median": statistics.median(values), "all": values} for name, values in seconds.items()}


def measure_seconds(run: Callable[[], object], count: int = 1) -> float:
    """Wall-clock seconds of one of `count` calls in a row; `run` waits for its own result."""
    began = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - began) / count
