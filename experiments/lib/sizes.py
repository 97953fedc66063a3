"""Models and clusters by the names that the command line knows them by."""

from typing import Any

import yaml

from ringrl.cli.compose import conf_folder
from ringrl.nn import ModelConfig
from ringrl.planning.targets import Target, settle


def load_model_config(name: str) -> ModelConfig:
    """The sizes of conf/model/NAME.yaml."""
    return ModelConfig(**_read("model", name))


def load_target(name: str) -> Target:
    """The cluster of conf/target/NAME.yaml."""
    return settle(Target(**_read("target", name)))


def list_targets() -> list[Target]:
    """Every named cluster of conf/target, in the order of their names."""
    names = sorted(path.stem for path in (conf_folder() / "target").glob("*.yaml") if path.stem != "custom")
    return [load_target(name) for name in names]


def _read(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text())
