"""Models and clusters by the names that the command line knows them by."""

import yaml

from ringrl.cli.compose import find_conf_folder
from ringrl.nn import ModelConfig
from ringrl.planning.cluster.targets import TARGETS, Target, fill_specification


def load_model_config(name: str) -> ModelConfig:
    """The sizes of conf/model/NAME.yaml."""
    return ModelConfig(**yaml.safe_load((find_conf_folder() / "model" / f"{name}.yaml").read_text()))


def load_target(name: str) -> Target:
    """The cluster that `target=NAME` chooses."""
    return fill_specification(TARGETS[name])


def list_targets() -> list[Target]:
    """Every named cluster, in the order of their names."""
    return [load_target(name) for name in sorted(TARGETS)]
