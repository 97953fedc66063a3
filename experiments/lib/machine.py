"""Where, when and with what a figure was measured."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "numpy", "gymnasium", "mujoco")


def describe_machine(*, device: bool = True) -> dict[str, Any]:
    """A record of this machine, its load and its software, as plain JSON.

    Args:
      device: name JAX's devices too, which starts a JAX backend.
    """
    found = {
        "date": datetime.date.today().isoformat(),
        "processor": _find_processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)},
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "git_commit": find_commit(),
    }
    if device:
        import jax

        found |= {
            "device": jax.devices()[0].device_kind,
            "platform": getattr(jax.devices()[0].client, "platform_version", ""),
        }
    return found


def find_commit() -> str:
    """The commit of this checkout, with `-dirty` where files have changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
