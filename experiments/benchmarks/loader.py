"""The loader against a training step: the quickstart's batches, and a store of a million steps."""

import tempfile
import time
from pathlib import Path

import common
import jax
import numpy as np
import psutil

from ringrl.agents import AgentConfig, make_agent
from ringrl.data import ChainSampler, EpisodeStore, EpisodeStoreWriter, fit_normalization
from ringrl.data.config import ChainConfig
from ringrl.ops import AttentionConfig
from ringrl.training.config import TrainingConfig
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step
from ringrl.types import Context

EPISODE_STEPS, CHAINS = 20, 16


def write_store(path: Path, episodes: int, tasks: int, episode_steps: int, observation_size: int) -> None:
    """Random episodes, with the quickstart's actions."""
    random = np.random.default_rng(0)
    with EpisodeStoreWriter(path, observation_size, common.SPEC.action) as writer:
        for episode in range(episodes):
            observations = random.normal(size=(episode_steps, observation_size)).astype(np.float32)
            actions = random.uniform(-1, 1, (episode_steps, 2)).astype(np.float32)
            writer.append(observations, actions, random.random(episode_steps), task_id=episode % tasks)
        writer.finish()


def quickstart_share(folder: Path, smoke: bool) -> dict[str, float]:
    """Milliseconds to prepare a batch of 16 chains of 16 episodes, and to train on it."""
    write_store(folder / "quickstart", 6400, 256, EPISODE_STEPS, common.SPEC.observation_size)
    store = EpisodeStore.open(folder / "quickstart")
    sampler = ChainSampler(store, ChainConfig(trajectories=16), fit_normalization(store))
    attention = AttentionConfig(strategy="blockwise", query_block_size=160, key_block_size=160)
    agent = make_agent(AgentConfig(), common.model_config("tiny"), attention, store.spec, context=Context.chain)
    training = TrainingConfig(batch_size=CHAINS)
    state, step = create_state(agent, training, 0), make_train_step(agent, training)

    def train() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    batch = sampler.batch(0, 0, CHAINS)
    train()
    numbers = iter(range(1, 10**9))
    seconds = common.interleaved(
        {
            "batch": lambda: common.seconds_of(lambda: sampler.batch(0, next(numbers), CHAINS), 5),
            "step": lambda: common.seconds_of(train, 2),
        },
        1 if smoke else 9,
    )
    return {name: 1e3 * found["median"] for name, found in seconds.items()}


def million_steps(folder: Path, smoke: bool) -> dict[str, float]:
    """Seconds to open a store, and MB of resident memory that sampling from it adds."""
    write_store(folder / "million", 10 if smoke else 1000, 1, 1000, 105)
    memory = psutil.Process().memory_info
    began, before = time.perf_counter(), memory().rss
    store = EpisodeStore.open(folder / "million")
    opened = time.perf_counter() - began
    sampler = ChainSampler(store, ChainConfig(trajectories=4), fit_normalization(store))
    most = before
    for index in range(2 if smoke else 200):
        sampler.batch(0, index, 4)
        most = max(most, memory().rss)
    return {"open_seconds": opened, "extra_megabytes": (most - before) / 1e6}


def main() -> None:
    """Print both against their goals."""
    options = common.arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        store = million_steps(Path(folder), options.smoke)  # first: memory that training leaves would hide its own
        share = quickstart_share(Path(folder), options.smoke)
    goals = {
        "preparing a batch, % of a training step": common.goal(
            100 * share["batch"] / share["step"], 5.0, at_least=False
        ),
        "opening 1M steps, seconds": common.goal(store["open_seconds"], 1.0, at_least=False),
        "sampling from 1M steps, extra MB": common.goal(store["extra_megabytes"], 300.0, at_least=False),
    }
    common.report("loader", {"goals": goals, "milliseconds": share, "store": store}, options.smoke)


if __name__ == "__main__":
    main()
