"""Config groups whose choices are rows of a table, which would otherwise be YAML files of two lines each.

`ringrl.cli.compose` registers them in Hydra's ConfigStore under the names that files would have.
"""

import dataclasses
from typing import Any

from ringrl.config.environments import ENVIRONMENTS
from ringrl.data.config import Source
from ringrl.data.known_sets import COLLECTED, collected_name
from ringrl.planning.cluster.targets import TARGETS, Target


def tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Map group -> choice -> the keys that it sets, with their values."""
    data = {source.value: {"source": source.value} for source in Source}
    data |= {name: {"source": Source.minari.value, "name": collected_name(name)} for name in COLLECTED}
    return {
        "data": data,
        "env": {name: dataclasses.asdict(environment) for name, environment in ENVIRONMENTS.items()},
        "target": {name: dataclasses.asdict(target) for name, target in (TARGETS | {"custom": Target()}).items()},
    }
