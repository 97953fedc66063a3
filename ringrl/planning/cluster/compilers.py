"""Locations and install commands of compilers for absent devices, for a checkout or an installed wheel."""

import shlex
import sys
from importlib import metadata
from pathlib import Path

COMPILERS = Path(sys.prefix) / "aot"  # apart from other programs: JAX looks for a TPU if it finds `libtpu`


def install_command(platform: str) -> str:
    """The shell command that installs the compiler for `tpu` or `cuda`, in the version of the installed JAX."""
    version = metadata.version("jax")
    packages = ["libtpu"] if platform == "tpu" else [f"jax-cuda13-{part}=={version}" for part in ("plugin", "pjrt")]
    pip = [sys.executable, "-m", "pip", "install", "--upgrade", "--no-deps", "--target", str(COMPILERS)]
    return shlex.join([*pip, *packages])
