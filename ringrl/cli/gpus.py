"""Assignment of a GPU to each process of a joblib sweep, by a lock held from before JAX starts until exit.

The locks are in one folder per machine, so several sweeps, of several users, share its GPUs too. Other launchers need
none: Hydra's own runs one job at a time, SLURM assigns GPUs, submitit_local sets CUDA_VISIBLE_DEVICES itself.
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from ringrl.cli.console import output
from ringrl.errors import RingRLError
from ringrl.parallel.config import AXES

VISIBLE = "CUDA_VISIBLE_DEVICES"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
_POLL_SECONDS = 1.0
_CUDA_PLUGINS = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")

_logger = logging.getLogger(__name__)
_claimed: list[str] = []  # by this process, which may run several jobs of a sweep in sequence


class LimitJobs(Callback):
    """Hydra callback that limits joblib's parallel jobs to the number of GPUs.

    Its processes keep their GPU between jobs: an additional process would wait for minutes, until another one's idle
    timeout.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once per sweep, in the process that launches it, before the launcher is made."""
        launcher = config.hydra.launcher
        if (
            launcher["_target_"] != JOBLIB
            or "mesh" not in config
            or _list_axes(config.mesh)
            or not uses_gpus(os.environ)
        ):
            return
        gpus = visible_gpus(os.environ, installed_gpus())
        jobs = 1 if launcher.n_jobs is None else launcher.n_jobs
        at_once = jobs if jobs > 0 else max((os.cpu_count() or 1) + 1 + jobs, 1)
        if gpus and at_once > len(gpus):
            with read_write(config):
                launcher.n_jobs = len(gpus)
            output(logged=False).print(f"jobs at once: {len(gpus)}, one a GPU (hydra.launcher.n_jobs={jobs})")


def claim_gpu(launcher: str, mesh: Mapping[str, Any] | None, say: Callable[[str], None]) -> str | None:
    """Make one GPU the only one visible to this process, and return its name; waits while all are taken.

    `launcher` is the `_target_` of Hydra's launcher, `mesh` the job's mesh sizes. Nothing happens, and None is
    returned, under launchers other than joblib, without GPUs or JAX's plugin for them, for a command without a mesh,
    and for a mesh of more than one device: such a job sees all GPUs. Raises RingRLError if such a job runs in a process
    that has claimed a GPU for an earlier job.
    """
    if launcher != JOBLIB or mesh is None:
        return None
    if sizes := _list_axes(mesh):
        if _claimed:
            raise RingRLError(
                f"{sizes} in a process of a sweep that was given the one GPU {_claimed[0]}: sweep over larger meshes "
                "by themselves, with hydra/launcher=basic."
            )
        return None
    if not _claimed and uses_gpus(os.environ):
        gpus = visible_gpus(os.environ, installed_gpus())
        if gpus:
            name = wait_for_lock(gpus, lock_folder(), say)
            os.environ[VISIBLE] = name
            _claimed.append(name)
    if not _claimed:
        return None
    _logger.info("this job's GPU: %s", _claimed[0])
    return _claimed[0]


def uses_gpus(environment: Mapping[str, str]) -> bool:
    """Whether JAX would use an NVIDIA GPU: its plugin is installed, and JAX_PLATFORMS does not exclude it."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return False
    for plugin in _CUDA_PLUGINS:
        with contextlib.suppress(ModuleNotFoundError):  # without any plugin even their common package is missing
            if importlib.util.find_spec(plugin) is not None:
                return True
    return False


def installed_gpus(proc: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The machine's GPUs by UUID, from nvidia-smi; by index without it; MIG slices in place of their GPU."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return [str(index) for index in range(len(list(proc.glob("*"))))]
    gpus: list[str] = []
    for uuid in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", listing):
        if uuid.startswith("MIG-") and gpus and gpus[-1].startswith("GPU-"):
            gpus.pop()  # the GPU of this slice, listed just before
        gpus.append(uuid)
    return gpus


def visible_gpus(environment: Mapping[str, str], installed: Sequence[str]) -> dict[str, str]:
    """The GPUs that the process may use: the name of each in CUDA_VISIBLE_DEVICES, and the name of its lock.

    As in CUDA, the list ends at the first invalid name. The lock is named by the UUID if that is known, so that 0 and
    GPU-1a2b..., which may be the same GPU, share a lock.
    """
    if VISIBLE not in environment:
        return {name: name for name in installed}
    gpus = {}
    for name in environment[VISIBLE].split(","):
        name = name.strip()
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
            break
        if name.isdigit():
            known = installed[int(name) : int(name) + 1]
        else:
            known = [uuid for uuid in installed if uuid.startswith(name)]
        gpus[name] = known[0] if known else name
    return gpus


def lock_folder() -> Path:
    """The folder of locks, created if missing and writable by every user of the machine."""
    folder = Path(tempfile.gettempdir()) / "ringrl-gpus"
    try:
        folder.mkdir()
        folder.chmod(0o1777)
    except FileExistsError:
        pass
    except OSError as error:
        raise RingRLError(f"Cannot make {folder}, for the locks of GPUs: {error.strerror}; set TMPDIR.") from error
    return folder


def wait_for_lock(gpus: Mapping[str, str], folder: Path, say: Callable[[str], None]) -> str:
    """Take the first free lock of `gpus` (name -> lock), for the lifetime of this process; waits if all are taken."""
    waiting = False
    while True:
        for name, lock in gpus.items():
            if _try_lock(folder / re.sub(r"[^\w-]", "_", lock)):
                return name
        if not waiting:
            say(f"waiting for a GPU: all are taken by other jobs of sweeps ({', '.join(gpus)}; locks in {folder})")
            waiting = True
        time.sleep(_POLL_SECONDS)


def _list_axes(mesh: Mapping[str, Any]) -> str:
    """The axes of a mesh of more than one device, in command-line syntax; empty for one device."""
    return " ".join(f"mesh.{axis}={mesh[axis]}" for axis in AXES if mesh[axis] != 1)


def _try_lock(path: Path) -> bool:
    """Lock the file unless another process holds it. The descriptor stays open: the kernel frees the lock on exit."""
    try:
        # Another user's file in a shared folder must not be opened for writing or with O_CREAT.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise RingRLError(f"Cannot lock a GPU by {path}: {error.strerror}; remove it, or set TMPDIR.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
