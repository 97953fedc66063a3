"""Making a task's simulation, where dm_control is imported for the first time."""

import os
from typing import TYPE_CHECKING

from ringrl_envs.dmc.catalogue import split_task

if TYPE_CHECKING:
    from ringrl_envs.dmc.simulation import Simulation

INSTALL = "pip install 'ringrl[dmc]'"


def build(task: str) -> "Simulation":
    """The simulation of a task such as "walker_stand".

    Raises:
        ValueError: no such task, dm_control is not installed, or its OpenGL backend cannot be loaded.
    """
    domain, name = split_task(task)
    try:
        if domain == "jaco":
            from ringrl_envs.dmc.jaco import JacoSimulation as Kind
        else:
            from ringrl_envs.dmc.suite import SuiteSimulation as Kind
    except ModuleNotFoundError as error:
        raise ValueError(f"dm_control's {task} cannot be made ({error}): {INSTALL}.") from error
    except (AttributeError, ImportError, RuntimeError) as error:  # what missing OpenGL libraries raise, by their kind
        backend = os.environ.get("MUJOCO_GL", "")
        raise ValueError(
            f"dm_control cannot be imported with MUJOCO_GL={backend!r} ({str(error).splitlines()[0]}): "
            "MUJOCO_GL=disable does without rendering."
        ) from error
    return Kind(domain, name)
