"""Storage of actors in small .npz files: plain arrays, written atomically and never unpickled."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.errors import RingRLError
from ringrl.files import write_atomically
from ringrl.online.actors import Actor
from ringrl.online.spaces import Spaces

FORMAT = 1
LARGEST_BYTES = 256 * 2**20  # limit of the uncompressed size, which protects against files that are not actors


def save_actor(path: str | Path, actor: Actor) -> None:
    """Write an actor; raises RingRLError if the disk refuses, and then keeps an existing file."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "environment": np.array(actor.spaces.environment),
        "label": np.array(actor.label),
        "low": actor.spaces.low,
        "high": actor.spaces.high,
        "observation_mean": actor.observation_mean,
        "observation_std": actor.observation_std,
    }
    for index, (kernel, bias) in enumerate(zip(actor.kernels, actor.biases, strict=True)):
        arrays |= {f"kernel_{index}": kernel, f"bias_{index}": bias}
    np.savez(packed, **arrays)
    write_atomically(Path(path), packed.getvalue())


def load_actor(path: str | Path) -> Actor:
    """Read what `save_actor` wrote.

    Raises RingRLError, naming the file and the fault, for anything else: a missing or truncated file, pickled objects,
    arrays of inconsistent shapes, numbers that are not finite.
    """
    try:
        return _actor(_arrays(Path(path)))
    except FileNotFoundError:
        raise RingRLError(f"{path}: no such file: give an actor that ringrl saved (actor_*.npz).") from None
    except OSError as error:
        if error.errno is not None:
            raise RingRLError(f"{path}: cannot be read now ({error.strerror}). See to the file's rights.") from None
        raise RingRLError(f"{path} is not a whole actor file ({error}): give one that ringrl saved.") from None
    except Exception as error:  # a damaged archive may raise almost anything
        fault = (str(error) or type(error).__name__).splitlines()[0]
        raise RingRLError(f"{path} is not a whole actor file ({fault}): give one that ringrl saved.") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > LARGEST_BYTES:
        raise ValueError(f"it unpacks to {unpacked} bytes, and an actor to {LARGEST_BYTES} at most")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise ValueError(f"{strange[0]!r} is not an array")
    return arrays


def _actor(arrays: dict[str, np.ndarray]) -> Actor:
    """The actor described by the arrays; raises ValueError with the reason if they are invalid."""
    if "format" not in arrays or arrays["format"].shape != () or arrays["format"] != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    depth = sum(name.startswith("kernel_") for name in arrays)
    layers = [(f"kernel_{index}", f"bias_{index}") for index in range(depth)]
    numbers = ("low", "high", "observation_mean", "observation_std", *(name for layer in layers for name in layer))
    missing = {"environment", "label", "kernel_0", *numbers} - set(arrays)
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name in numbers:
        if arrays[name].dtype != np.float32 or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is not of finite float32 numbers")
    for name in ("environment", "label"):
        if arrays[name].shape != () or arrays[name].dtype.kind != "U" or not str(arrays[name]).isprintable():
            raise ValueError(f"{name} is not one line of text")
    low, mean = arrays["low"], arrays["observation_mean"]
    width = mean.size
    expected = {"low": (low.size,), "high": (low.size,), "observation_mean": (width,), "observation_std": (width,)}
    for index, (kernel, bias) in enumerate(layers):
        following = 2 * low.size if index == depth - 1 else arrays[bias].size
        expected |= {kernel: (width, following), bias: (following,)}
        width = following
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, not {shape}")
    if not (arrays["observation_std"] > 0).all() or not (low <= arrays["high"]).all():
        raise ValueError("observation_std must be positive, and low at most high")
    return Actor(
        kernels=tuple(arrays[kernel] for kernel, _ in layers),
        biases=tuple(arrays[bias] for _, bias in layers),
        observation_mean=mean,
        observation_std=arrays["observation_std"],
        spaces=Spaces(str(arrays["environment"]), mean.size, low, arrays["high"]),
        label=str(arrays["label"]),
    )
