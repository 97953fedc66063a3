"""Relabellers without a simulator, picklable, for the tests of the ExoRL import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def weighted_sum(physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Reward of row t: of the state and of the action that led there; the dummy row gets 0."""
    rewards = physics @ np.arange(1.0, physics.shape[1] + 1) + actions[:, 0]
    rewards[0] = 0.0
    return rewards


@dataclass
class Toy:
    """A relabeller with the sizes of its environment; it notes each call by a line in the file `log`."""

    observation_size: int = 3
    physics_size: int = 4
    log: str = ""
    seconds: float = 0.0

    def __call__(self, physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()}\n")
        return weighted_sum(physics, actions)


@dataclass
class Failing(Toy):
    """Raises or does `how` at the state whose first number is `at`."""

    how: str = "raise"
    at: float = 0.0

    def __call__(self, physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
        if physics[0, 0] == self.at:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "nan":
                return np.full(len(physics), np.nan)
            if self.how == "short":
                return np.zeros(len(physics) - 1)
            raise ValueError("the simulator\nhas diverged")
        return super().__call__(physics, actions)
