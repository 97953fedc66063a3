"""Where the configuration comes from: the schemas, the folders of YAML files, and the dataclasses built from both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import ringrl
from ringrl.cli.run_names import register_resolvers
from ringrl.config import COMMANDS
from ringrl.config.schema import as_plain, build, schema
from ringrl.errors import RingRLError

T = TypeVar("T")


def conf_folder() -> Path:
    """The checkout's `conf` when RingRL runs from one, else the copy shipped in the wheel."""
    package = Path(ringrl.__file__).resolve().parent
    checkout = package.parent / "conf"
    if (checkout / "train.yaml").is_file() and (package.parent / "pyproject.toml").is_file():
        return checkout
    return package / "conf"


def register_schemas() -> None:
    """Make each command's schema known to Hydra as `<command>_schema`, and the names of run folders to OmegaConf."""
    for command, cls in COMMANDS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema(cls))
    register_resolvers()


def command_from(cls: type[T], config: DictConfig) -> T:
    """The frozen, checked dataclass of a composed configuration."""
    return build(cls, OmegaConf.to_container(config, resolve=True, enum_to_str=True))  # type: ignore[arg-type]


def as_yaml(command: Any) -> str:
    """A command's dataclass as YAML that `load_yaml` reads back."""
    return OmegaConf.to_yaml(OmegaConf.create(as_plain(command)))


def load_yaml(cls: type[T], path: Path, changes: Mapping[str, Any] | None = None) -> T:
    """The dataclass stored at `path` with `changes` (dotted keys) on top; raises RingRLError where there is none."""
    try:
        config = OmegaConf.load(path)
    except OSError:
        raise RingRLError(f"{path} is missing: it is not the folder of a run that has started.") from None
    for key, value in (changes or {}).items():
        OmegaConf.update(config, key, value)
    return build(cls, OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
