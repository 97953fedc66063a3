"""Synchronization of environments that every process of a run steps itself."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from jax.experimental import multihost_utils

from ringrl.errors import RingRLError
from ringrl.evaluation.rollout import SUCCESS_KEYS, read_success


def synchronize_environments(environments: gymnasium.vector.VectorEnv) -> gymnasium.vector.VectorEnv:
    """Wrap environments so that they return process 0's results, if there are several processes."""
    return environments if jax.process_count() == 1 else Lockstep(environments)


class Lockstep(gymnasium.vector.VectorWrapper):
    """Replaces the results of environments with those of process 0; only successes remain of `info`.

    A policy whose cache is sharded over the devices of all processes computes with a single history: a difference in
    the last bit between two machines would make it inconsistent, and an episode that ends on one machine alone would
    make the others wait forever.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset the environments; a collective."""
        observations, _ = _run_in_all(lambda: self.env.reset(seed=seed, options=options))
        return _broadcast(np.asarray(observations))[0], {}

    def step(self, actions: Any):
        """Step the environments with the same actions in every process; a collective."""
        observations, rewards, terminated, truncated, infos = _run_in_all(lambda: self.env.step(actions))
        success = read_success(infos, self.num_envs)
        observations, rewards, terminated, truncated, told, flags = _broadcast(
            np.asarray(observations),
            np.asarray(rewards, np.float64),
            np.asarray(terminated, bool),
            np.asarray(truncated, bool),
            np.array([success is not None]),
            np.zeros(self.num_envs, bool) if success is None else success,
        )
        return observations, rewards, terminated, truncated, {SUCCESS_KEYS[0]: flags} if told[0] else {}


def _run_in_all(act: Callable[[], Any]) -> Any:
    """The result of `act` in every process; if it fails in one, the others do not wait for it but fail too."""
    answer, fault = None, None
    try:
        answer = act()
    except Exception as error:
        fault = error
    failed = np.asarray(multihost_utils.process_allgather(np.asarray(fault is not None, np.int32)))
    if fault is not None:
        raise fault
    if failed.any():
        raise RingRLError("The environment failed in another process; it says why.")
    return answer


def _broadcast(*arrays: np.ndarray) -> list[np.ndarray]:
    """Broadcast process 0's arrays bit by bit (JAX alone would round float64), in one message."""
    sent = np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
    parts = np.split(received, np.cumsum([array.nbytes for array in arrays])[:-1])
    return [
        np.frombuffer(part.tobytes(), array.dtype).reshape(array.shape).copy()
        for part, array in zip(parts, arrays, strict=True)
    ]
