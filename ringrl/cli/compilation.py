"""A persistent cache of compiled programs, so that a second start does not wait for the compiler.

JAX has such a cache. Its files are written in place, so that a killed process leaves a partial one, which causes a
warning and is never replaced; limiting their size needs file locks, which many shared file systems lack. The folder
here is JAX's cache with files that are written atomically, have a checksum, and are evicted by age.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringrl.training.programs import Programs

VARIABLE = "RINGRL_COMPILATION_CACHE"  # another folder; empty: no cache
MAX_BYTES = 2 << 30  # total over all versions and machines
_SUFFIX = ".program"
_logger = logging.getLogger(__name__)


def use_compilation_cache(data_root: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Let JAX cache the programs that this process compiles, in `data_root/compilation` unless `VARIABLE` is set.

    JAX's own cache, if configured by the user (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE), takes
    precedence. A folder that cannot be created, or that other users may write to, is not used: a program is code.

    Returns:
        The folder in use; None if there is none, or it is not RingRL's.
    """
    import jax
    from jax._src import compilation_cache as of_jax

    chosen, of_user = environment.get(VARIABLE), jax.config.values
    if chosen == "" or of_user["jax_compilation_cache_dir"] or not of_user["jax_enable_compilation_cache"]:
        return None
    root = Path(chosen).expanduser() if chosen else data_root / "compilation"
    folder = root / _machine()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            _logger.debug("%s belongs to other users as well: compiled programs are not kept", folder)
            return None
    except OSError as error:
        _logger.debug("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small ones take as long as a large one
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if not hasattr(of_jax, "_cache") or not hasattr(of_jax, "_cache_initialized"):
        return folder  # a JAX with other internals: its own files, in the same folder
    if of_jax._cache is not None:  # of an earlier command in this process
        of_jax.reset_cache()
    of_jax._cache, of_jax._cache_initialized = ProgramFolder(folder, root), True  # type: ignore[assignment]
    return folder


def kept_programs(definition: Any) -> "Programs | None":
    """Storage of whole programs of that definition, beside JAX's own; None unless this is the only process."""
    from jax._src import compilation_cache as of_jax

    from ringrl.training.programs import Programs

    cache = getattr(of_jax, "_cache", None)
    return Programs(cache, definition) if isinstance(cache, ProgramFolder) and not _several_processes() else None


class ProgramFolder:
    """A JAX `CacheInterface` over a folder; any error of the disk or of a file counts as a missing program.

    Args:
        folder: the folder of this machine and version.
        root: the parent folder, whose total size is limited.
        max_bytes: limit of the size of `root`, above which old programs are evicted.
    """

    def __init__(self, folder: Path, root: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = folder  # JAX uses this name in its log
        self._root, self._max_bytes, self._written = root, max_bytes, 0
        self._paused = False
        self.prune()

    def get(self, key: str) -> bytes | None:
        """The program stored under that key, or None; a damaged one is removed."""
        if self._paused or _several_processes():
            return None
        file = self._path / f"{key}{_SUFFIX}"
        try:
            stored = file.read_bytes()
            if len(stored) < 4 or zlib.crc32(stored[4:]) != int.from_bytes(stored[:4], "little"):
                file.unlink()
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # marks it as recently used
        return stored[4:]

    def put(self, key: str, value: bytes) -> None:
        """Store a program atomically."""
        if self._paused or _several_processes():
            return
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._path, prefix=".writing-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(zlib.crc32(value).to_bytes(4, "little") + value)
            os.replace(temporary, self._path / f"{key}{_SUFFIX}")
        except OSError as error:
            _logger.debug("a compiled program is not kept: %s", error)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            return
        self._written += len(value)
        if self._written > self._max_bytes // 8:
            self.prune()

    @contextlib.contextmanager
    def compile_afresh(self) -> Iterator[None]:
        """Context without lookups and writes."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def prune(self) -> None:
        """Evict the least recently used programs, of all versions and machines, until the rest fits."""
        self._written = 0
        files = []
        for pattern in (f"*/*{_SUFFIX}", "*/.writing-*"):
            for file in self._root.glob(pattern):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    files.append((status.st_mtime, status.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files, key=lambda entry: entry[0]):
            if total <= self._max_bytes:
                break
            with contextlib.suppress(OSError):
                file.unlink()
                total -= size


def _several_processes() -> bool:
    """Whether this process is one of several: a program loaded by only some of them would deadlock GPU tuning."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _machine() -> str:
    """A folder name for this user, version and kind of CPU: a program uses all instructions of its CPU."""
    import jax

    told = [platform.machine(), platform.processor(), jax.__version__, importlib.metadata.version("jaxlib")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    digest = hashlib.blake2b("\n".join(told).encode(), digest_size=6).hexdigest()
    user = f"u{os.getuid()}-" if hasattr(os, "getuid") else ""
    return f"{user}jax{jax.__version__}-{digest}"


def _is_ours(folder: Path) -> bool:
    """Whether only this user can write programs there."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
