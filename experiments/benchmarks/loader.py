"""The loader against a training step: the quickstart's batches, and a store of a million steps."""

import tempfile
import time
from pathlib import Path

import jax
import psutil

from experiments.lib.random_data import write_random_store
from experiments.lib.results import make_goal, make_parser, print_goals, write_results
from experiments.lib.sizes import load_model_config
from experiments.lib.timing import measure_interleaved, measure_seconds
from ringrl.agents import AgentConfig, make_agent
from ringrl.data import ChainSampler, EpisodeStore, fit_normalization
from ringrl.data.config import ChainConfig
from ringrl.ops import AttentionConfig
from ringrl.training.config import TrainingConfig
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step
from ringrl.types import Context

EPISODE_STEPS, CHAINS = 20, 16


def quickstart_share(folder: Path, smoke: bool) -> dict[str, float]:
    """Milliseconds to prepare a batch of 16 chains of 16 episodes, and to train on it."""
    sizes = {"episodes": 6400, "tasks": 256, "episode_steps": EPISODE_STEPS}
    write_random_store(folder / "quickstart", **sizes, observation_size=4, action_size=2)
    store = EpisodeStore.open(folder / "quickstart")
    sampler = ChainSampler(store, ChainConfig(trajectories=16), fit_normalization(store))
    attention = AttentionConfig(strategy="blockwise", query_block_size=160, key_block_size=160)
    agent = make_agent(AgentConfig(), load_model_config("tiny"), attention, store.spec, context=Context.chain)
    training = TrainingConfig(batch_size=CHAINS)
    state, step = create_state(agent, training, 0), make_train_step(agent, training)

    def train() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    batch = sampler.batch(0, 0, CHAINS)
    train()
    numbers = iter(range(1, 10**9))
    seconds = measure_interleaved(
        {
            "batch": lambda: measure_seconds(lambda: sampler.batch(0, next(numbers), CHAINS), 5),
            "step": lambda: measure_seconds(train, 2),
        },
        1 if smoke else 9,
    )
    return {name: 1e3 * found["median"] for name, found in seconds.items()}


def million_steps(folder: Path, smoke: bool) -> dict[str, float]:
    """Seconds to open a store, and MB of resident memory that sampling from it adds."""
    sizes = {"episodes": 10 if smoke else 1000, "episode_steps": 1000}
    write_random_store(folder / "million", **sizes, observation_size=105, action_size=2)
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
    options = make_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = million_steps(Path(folder), options.smoke)  # first: memory that training leaves would hide its own
        share = quickstart_share(Path(folder), options.smoke)
    goals = {
        "preparing a batch, % of a training step": make_goal(100 * share["batch"] / share["step"], 5.0, at_least=False),
        "opening 1M steps, seconds": make_goal(store["open_seconds"], 1.0, at_least=False),
        "sampling from 1M steps, extra MB": make_goal(store["extra_megabytes"], 300.0, at_least=False),
    }
    print_goals("loader", goals)
    if not options.smoke:
        results = Path(__file__).parent / "results" / "loader.json"
        write_results(results, "loader", goals=goals, milliseconds=share, store=store)


if __name__ == "__main__":
    main()
