"""Sources of the configuration: schemas, tables, folders of YAML files; and the dataclasses built from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import ringrl
from ringrl.cli.groups import find_choice_files, find_groups
from ringrl.cli.run_names import register_resolvers
from ringrl.config import COMMANDS
from ringrl.config.schema import as_plain, build, schema
from ringrl.config.tables import tables
from ringrl.errors import RingRLError

T = TypeVar("T")


def find_conf_folder() -> Path:
    """The checkout's `conf` if RingRL runs from one, else the copy shipped in the wheel."""
    package = Path(ringrl.__file__).resolve().parent
    checkout = package.parent / "conf"
    if (checkout / "train.yaml").is_file() and (package.parent / "pyproject.toml").is_file():
        return checkout
    return package / "conf"


def register(commands: Iterable[str] = tuple(COMMANDS), own: Iterable[Path] = ()) -> None:
    """Register with Hydra and OmegaConf what is not in YAML files: schemas, tables and the functions of `${...:}`.

    Args:
        commands: the commands whose schemas are registered, each as `<command>_schema`.
        own: the user's folders of YAML files; a file there overrides a table's row.
    """
    store, theirs, rows = ConfigStore.instance(), find_choice_files(own), tables()
    for command in commands:
        store.store(name=f"{command}_schema", node=schema(COMMANDS[command]))
    for group in {group for command in commands for group in find_groups(command, find_conf_folder()) if group in rows}:
        store.repo[group] = {}  # Hydra would merge a file with the row of the same name
        for choice, values in rows[group].items():
            if choice not in theirs.get(group, ()):
                store.store(group=group, name=choice, node=values)
    OmegaConf.register_new_resolver("by_agent", _by_agent, replace=True)
    register_resolvers()


def _by_agent(values: Mapping[str, Any], *, _root_: DictConfig) -> Any:
    """`${by_agent:{at:16,others:256}}`: the value for the trained agent, or else that of `others`."""
    return values.get(str(_root_.agent.name), values.get("others"))


def build_command(cls: type[T], config: DictConfig) -> T:
    """Build the frozen, checked dataclass of a composed configuration."""
    return build(cls, OmegaConf.to_container(config, resolve=True, enum_to_str=True))  # type: ignore[arg-type]


def format_yaml(command: Any) -> str:
    """Format a command's dataclass as YAML that `load_yaml` can read."""
    return OmegaConf.to_yaml(OmegaConf.create(as_plain(command)))


def load_yaml(cls: type[T], path: Path, changes: Mapping[str, Any] | None = None) -> T:
    """Load the dataclass stored at `path` with `changes` (dotted keys) applied; raises RingRLError if there is none."""
    try:
        config = OmegaConf.load(path)
    except OSError:
        raise RingRLError(f"{path} is missing: it is not the folder of a run that has started.") from None
    for key, value in (changes or {}).items():
        OmegaConf.update(config, key, value)
    return build(cls, OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
