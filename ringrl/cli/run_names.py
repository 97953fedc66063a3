"""Names of run folders, from agent, seed, label and the keys that a sweep varies; TensorBoard shows them.

Names consist of letters, digits and `._+-` alone, so they need no quoting on the command line.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ringrl.cli.overrides import quote_value

LONGEST = 100  # characters of a name
_HASH = 6
_NEVER_VARIED = ("resume", "debug")


class RunNaming(Callback):
    """Hydra callback that passes to a sweep's jobs its folder, and the overrides that are the same in all of them.

    There is one folder even if its name varies (`name=a,b`), because it holds the sweep's table and failures.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once per sweep, in the process that launches it; jobs are composed with its additions."""
        same = constant_keys(config.hydra.overrides.task)
        config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(same)}]")
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote_value(config.hydra.sweep.dir)}")


def register_resolvers() -> None:
    """Register `${run_label:}` and `${job_name:}`, used in conf/run_folder.yaml."""
    OmegaConf.register_new_resolver("run_label", _run_label, replace=True)
    OmegaConf.register_new_resolver("job_name", _job_name, replace=True)


def constant_keys(overrides: Iterable[str]) -> list[str]:
    """The keys that a sweep's overrides set to one value; a key given twice is excluded if either is a sweep."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {one.key_or_group for one in parsed if one.is_sweep_override()}
    return [one.key_or_group for one in parsed if one.key_or_group not in swept]


def run_label(agent: str | None, seed: int | None, label: str | None) -> str:
    """`_AGENT_seedN` and the label, for a single run's folder; empty for a command without an agent."""
    parts = [agent, f"seed{seed}", label] if agent and seed is not None else []
    return "".join(f"_{safe_name(str(part))}" for part in parts if part)


def job_name(
    agent: str | None, seed: int | None, overrides: Iterable[str], same: Iterable[str], number: int | str
) -> str:
    """The folder name of a sweep's job: agent and seed if the command has them, then every other key that varies.

    Jobs of one sweep have different names, and resubmitting a job, in any order, gives the same name.

    Args:
        agent: Name of the agent, or None.
        seed: The job's seed; part of the name only with an agent, or if it varies.
        overrides: The job's overrides.
        same: Keys that do not vary.
        number: The job's number, its name if no varying key is known.
    """
    excluded = {*same, *_NEVER_VARIED}
    pairs = [override.lstrip("+~").partition("=") for override in overrides]
    varied = {key: value for key, _, value in pairs if key not in excluded and not key.startswith("hydra")}
    of_agent = agent is not None and seed is not None
    words = [agent, f"seed{seed}"] if of_agent else []
    if of_agent and varied.get("agent") == agent:
        del varied["agent"]
    if of_agent:
        varied.pop("seed", None)
    last = [key.rsplit(".", 1)[-1] for key in varied]
    for key, value in sorted(varied.items()):
        tail = key.rsplit(".", 1)[-1]
        words.append(f"{tail if last.count(tail) == 1 else key}-{value}")
    return safe_name("_".join(word for word in words if word)) or str(number)


def safe_name(text: str) -> str:
    """Convert text to a folder name; a hash distinguishes texts that differ in omitted or truncated characters."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", text.replace("/", "-")).strip("-.")
    if safe == text.replace("/", "-") and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{safe[: LONGEST - _HASH - 1].rstrip('-.')}-{digest}".lstrip("-")


def _run_label(*, _root_: DictConfig) -> str:
    return run_label(*(_select(_root_, key) for key in ("agent.name", "seed", "label")))


def _job_name(*, _root_: DictConfig) -> str:
    hydra = _root_.hydra
    same = _select(_root_, "hydra.job.config.override_dirname.exclude_keys") or []
    return job_name(_select(_root_, "agent.name"), _select(_root_, "seed"), hydra.overrides.task, same, hydra.job.num)


def _select(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key, throw_on_missing=False)
