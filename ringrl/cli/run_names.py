"""What run folders are called: by agent, seed, label and what a sweep varies, which tells TensorBoard's runs apart.

Names are of letters, digits and `._+-` alone: they can be typed as values of the command line as they are.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ringrl.cli.overrides import quoted

LONGEST = 100  # characters of a name
_HASH = 6
_NEVER_VARIED = ("resume", "debug")


class NameByWhatVaries(Callback):
    """Hydra callback: tells the jobs of a sweep its folder, and which of their overrides are the same in all of them.

    The folder is one, whatever of its name varies (`name=a,b`): table and failures of the sweep are looked for there.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once per sweep, in the process that launches it; jobs are composed from what it adds."""
        same = constant_keys(config.hydra.overrides.task)
        config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(same)}]")
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")


def register_resolvers() -> None:
    """Make `${run_label:}` and `${job_name:}` known to the configurations in conf/run_folder.yaml."""
    OmegaConf.register_new_resolver("run_label", _run_label, replace=True)
    OmegaConf.register_new_resolver("job_name", _job_name, replace=True)


def constant_keys(overrides: Iterable[str]) -> list[str]:
    """The keys that a sweep's overrides set to one value; of a key that is given twice, neither may be a sweep."""
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
    """The folder of a sweep's job: agent and seed where the command has them, then every other key that varies.

    Jobs of one sweep have different names, and the same job sent again, in whatever order, has the same one.

    Args:
        agent: Name of the agent, or None.
        seed: The job's seed; named only with an agent, or where it varies.
        overrides: The job's overrides.
        same: Keys that do not vary.
        number: The job's number, its name where nothing is known to vary.
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
    """Text as a folder's name; a hash tells apart what characters that are left out, or its end, would have."""
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
