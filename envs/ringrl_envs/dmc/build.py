"""Making a task's simulation, where dm_control is imported for the first time."""

import os
import sys
from typing import TYPE_CHECKING

from ringrl_envs.dmc.catalogue import split_task

if TYPE_CHECKING:
    from ringrl_envs.dmc.simulation import Simulation

INSTALL = "pip install 'ringrl[dmc]'"
VERSION = "1.0.36"  # goes with the extra's mujoco
PYTHON_WITHOUT_LABMAZE = (3, 13)  # the first without a wheel of it


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
        raise ValueError(f"dm_control's {task} cannot be made ({error}): {describe_install()}.") from error
    except (AttributeError, ImportError, RuntimeError) as error:  # what missing OpenGL libraries raise, by their kind
        backend = os.environ.get("MUJOCO_GL", "")
        raise ValueError(
            f"dm_control cannot be imported with MUJOCO_GL={backend!r} ({str(error).splitlines()[0]}): "
            "MUJOCO_GL=disable does without rendering."
        ) from error
    return Kind(domain, name)


def describe_install(python: tuple[int, int] = sys.version_info[:2]) -> str:
    """What to type for dm_control on a version of Python; the extra leaves it out where its labmaze has no wheel."""
    if python < PYTHON_WITHOUT_LABMAZE:
        return INSTALL
    version = ".".join(map(str, python))
    return (
        f"{INSTALL} && pip install --no-deps dm_control=={VERSION} "
        f"(it requires labmaze, which has no wheel for Python {version} and which no task here uses)"
    )
