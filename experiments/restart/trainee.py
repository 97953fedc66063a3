"""A small training run that goes on from the newest whole checkpoint of its folder: what the crash test kills.

`python trainee.py FOLDER STEPS`, where FOLDER/store holds the data. Prints a line for where it begins, for each step's
loss (exactly, in hexadecimal) and for a checkpoint passed over; at the end writes FOLDER/final.json.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ringrl.agents import AgentConfig, make_agent
from ringrl.data import ChainSampler, EpisodeStore, fit_normalization, make_loader
from ringrl.data.config import ChainConfig
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.training.checkpoint import Checkpointer
from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.loop import train
from ringrl.training.state import create_state
from ringrl.types import Context

BATCH, SAVE_EVERY = 4, 2


class Printer:
    """A logger that prints each loss at once, so that a kill loses none of them."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Of the scalars, the loss."""
        if "train/loss" in values:
            print("loss", step, values["train/loss"].hex(), flush=True)

    def histograms(self, tree: Any, step: int, prefix: str = "") -> None:
        """None."""

    def flush(self) -> None:
        """Nothing is buffered."""


def digest(tree: Any) -> str:
    """SHA-256 of every leaf's bytes, in order."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        raw = jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        total.update(np.asarray(raw).tobytes())
    return total.hexdigest()


def main() -> None:
    """Resume or start, train to the end, write the digests of the final state."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    store = EpisodeStore.open(folder / "store")
    sampler = ChainSampler(store, ChainConfig(trajectories=4), fit_normalization(store))
    model = ModelConfig(layers=2, width=64, heads=2, attention_dropout=0.1, residual_dropout=0.1)
    agent = make_agent(AgentConfig(), model, AttentionConfig(), store.spec, context=Context.chain)
    training = TrainingConfig(
        steps=steps, batch_size=BATCH, log_every=1, save_every=SAVE_EVERY, optimizer=OptimizerConfig(warmup_steps=5)
    )
    checkpointer = Checkpointer(folder / "checkpoints", warn=lambda line: print("damaged", line, flush=True))
    state, resumed = create_state(agent, training, 0), None
    if checkpointer.steps():
        state, resumed = checkpointer.restore("last", like=state)
    print("begin", int(state.step), flush=True)
    result = train(
        agent,
        state,
        lambda start: make_loader(sampler, seed=0, batch_size=BATCH, start=start, stop=steps, threads=1, prefetch=2),
        training,
        checkpointer=checkpointer,
        logger=Printer(),
        resumed=resumed,
        progress=False,
    )
    final = {
        "step": result.steps,
        "tokens": result.tokens,
        "parameters": digest(result.state.params),
        "state": digest(result.state),
    }
    (folder / "final.json").write_text(json.dumps(final))


if __name__ == "__main__":
    main()
