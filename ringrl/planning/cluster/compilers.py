"""Where compilers of absent devices are installed, and how: for who has a checkout and for who has only the wheel."""

import shlex
import sys
from importlib import metadata
from pathlib import Path

COMPILERS = Path(sys.prefix) / "aot"  # no other program should find them: where JAX sees `libtpu`, it looks for a TPU


def install_command(platform: str) -> str:
    """What to type into a shell to install the compiler for `tpu` or `cuda`, of the version of the JAX that is here."""
    version = metadata.version("jax")
    packages = ["libtpu"] if platform == "tpu" else [f"jax-cuda13-{part}=={version}" for part in ("plugin", "pjrt")]
    pip = [sys.executable, "-m", "pip", "install", "--upgrade", "--no-deps", "--target", str(COMPILERS)]
    return shlex.join([*pip, *packages])
