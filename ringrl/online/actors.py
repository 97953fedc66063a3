"""A learned actor in NumPy, which is faster than a JAX dispatch for a few observations at a time."""

import dataclasses

import numpy as np

from ringrl.errors import RingRLError
from ringrl.online.networks import LOG_STD_RANGE
from ringrl.online.sac import CLIP, SacState
from ringrl.online.spaces import Spaces


@dataclasses.dataclass(frozen=True, eq=False)
class Actor:
    """Weights, the scale of observations, the bounds of actions, and a name such as "sac(step=12000)"."""

    kernels: tuple[np.ndarray, ...]  # (in, out) float32 each
    biases: tuple[np.ndarray, ...]  # (out,) float32 each
    observation_mean: np.ndarray  # (O,) float32
    observation_std: np.ndarray  # (O,) float32
    spaces: Spaces
    label: str

    def act(self, observations: np.ndarray, rng: np.random.Generator, noise: float = 1.0) -> np.ndarray:
        """Actions (B, A) in [-1, 1] for raw observations (B, O), with `noise` times the learned deviation."""
        raw = np.asarray(observations, np.float32)
        with np.errstate(over="ignore"):  # beyond float32 is beyond the clip too
            hidden = np.clip((raw - self.observation_mean) / self.observation_std, -CLIP, CLIP)
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ kernel + bias, 0.0)
        mean, spread = np.split(hidden @ self.kernels[-1] + self.biases[-1], 2, axis=-1)
        if noise:
            low, high = LOG_STD_RANGE
            deviation = np.exp(low + 0.5 * (high - low) * (np.tanh(spread) + 1.0))
            mean = mean + noise * deviation * rng.standard_normal(mean.shape, np.float32)
        return np.tanh(mean)


def extract_actor(state: SacState, spaces: Spaces, label: str) -> Actor:
    """Copy the actor from a learner's state, which may be donated afterwards.

    Raises RingRLError if learning has diverged.
    """
    kernels = tuple(np.array(layer["kernel"]) for layer in state.actor)
    biases = tuple(np.array(layer["bias"]) for layer in state.actor)
    mean, std = np.array(state.moments.mean), np.array(state.moments.std)
    if not all(np.isfinite(numbers).all() for numbers in (*kernels, *biases, mean, std)):
        raise RingRLError(
            f"{spaces.environment}: learning diverged before {label} (weights are not finite): "
            "lower learning_rate, or scale the rewards down."
        )
    return Actor(kernels, biases, mean, std, spaces, label)
