"""Configuration of each command: the packages' dataclasses combined, and the checks across packages."""

from ringrl.config.data import (
    BehaviorConfig,
    BehaviorKind,
    CollectCommand,
    DataCommand,
    ImportCommand,
    ImportSource,
    Rewards,
    StorageFormat,
)
from ringrl.config.plan import PlanCommand, Search
from ringrl.config.tools import BenchCommand, Benchmark, ReportCommand
from ringrl.config.train import EnvConfig, EvalCommand, ResumeChanges, TrainCommand, Which

COMMANDS = {
    "train": TrainCommand,
    "eval": EvalCommand,
    "collect": CollectCommand,
    "import": ImportCommand,
    "data": DataCommand,
    "report": ReportCommand,
    "bench": BenchCommand,
    "plan": PlanCommand,
}

__all__ = [
    "COMMANDS",
    "BehaviorConfig",
    "BehaviorKind",
    "BenchCommand",
    "Benchmark",
    "CollectCommand",
    "DataCommand",
    "EnvConfig",
    "EvalCommand",
    "ImportCommand",
    "ImportSource",
    "PlanCommand",
    "ReportCommand",
    "ResumeChanges",
    "Rewards",
    "Search",
    "StorageFormat",
    "TrainCommand",
    "Which",
]
